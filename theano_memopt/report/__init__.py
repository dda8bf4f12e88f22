"""What a plan means for a person: readers of Plan and Profile, never of a host.

    model     Report, Profile, Comparison: frozen, and every figure on them comes from the planner's own accounting
    text      a report for the terminal
    page      a report as one HTML file that needs no network
    trace     a report in the Chrome trace format, which Perfetto opens
    files     JSON, and writing whole files or nothing

The picture is drawn by uPlot 1.6.32 (uplot.min.js, MIT, 50 KB): its charts redraw 5,000 steps without delay, and a page stays small
enough to be mailed.
"""

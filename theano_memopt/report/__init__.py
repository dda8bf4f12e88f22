"""What a plan means for a person. Report, Profile and Comparison are frozen data; every reader takes them and answers text or a file.

    words        figures in words: percent, bytes with a unit
    model        Report and Profile: what was planned, what was measured
    comparison   Comparison: both side by side, and why they differ
    drawing      where storage lies over the steps, as boxes
    together     two reports side by side
    text         for the terminal
    json_form    as plain data, for JSON
    page         one HTML file that needs no network (page.html, page.css, page.js)
    trace        the Chrome trace format, which Perfetto opens
    run_table    one line per function of a whole program
    printable    the Report that `explain` hands out: it prints and writes itself

A new figure is a property of `model.Report`; then each reader that shows it gets a line. No module here imports a host.

The picture is drawn by uPlot 1.6.32 (uplot.min.js, MIT, 50 KB): its charts redraw 5,000 steps without delay, and a page stays small
enough to be mailed.
"""

"""The page as a browser shows it: opened in headless Chromium, pointed at, and read back. And where there is no browser, as node runs it over
a few stand-ins for a browser's elements (stub_dom.js), at two widths: what it says, and what it paints where."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest

from tests.report.plans import chain_of_blocks, real_report
from theano_memopt.planner.model import build_graph
from theano_memopt.planner.plan import along, make_plan
from theano_memopt.report import page
from theano_memopt.report.model import Advice, Known, Need, Profile, Report, Step
from theano_memopt.report.printable import PrintableComparison, PrintableReport, compare, report_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed: the page cannot be opened")

PROBE = """
<script>
"use strict";
window.complaints = [];
window.addEventListener("error", (e) => window.complaints.push(String(e.message)));
for (const level of ["error", "warn"]) console[level] = (...words) => window.complaints.push(words.join(" "));
</script>
"""
READ = """
<script>
"use strict";
setTimeout(() => {
  const count = (chart, colours) => {   /* canvas points of each colour, to a tolerance */
    const canvas = document.querySelector(chart + " canvas"), c = canvas.getContext("2d");
    const data = c.getImageData(0, 0, canvas.width, canvas.height).data, found = colours.map(() => 0);
    for (let i = 0; i < data.length; i += 4) colours.forEach(([r, g, b], k) => {
      if (data[i + 3] > 200 && Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 24) found[k]++;
    });
    return found;
  };
  const point = (chart, x, y) => {
    const over = document.querySelector(chart + " .u-over"), box = over.getBoundingClientRect();
    over.dispatchEvent(new MouseEvent("mousemove", { clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true }));
  };
  const text = () => [...document.querySelectorAll("#alive > div")].map((d) => d.textContent);
  const out = { title: document.title, name: document.getElementById("name").textContent, atFirst: text() };
  out.curves = document.querySelector("#timeline .uplot").dataset.curves;
  const boxes = document.querySelector("#boxes .uplot");
  out.boxes = boxes ? boxes.dataset.boxes : null;
  out.ink = count("#timeline", [[224, 123, 57], [37, 99, 171], [60, 141, 90]]);
  out.wide = [document.documentElement.scrollWidth, window.innerWidth];
  out.filled = boxes ? count("#boxes", [[127, 168, 217], [232, 176, 122], [141, 198, 160], [217, 154, 165], [179, 161, 214]]) : [];
  out.cards = [...document.querySelectorAll(".card")].map((c) => c.textContent);
  out.rows = document.querySelectorAll("#largest tbody tr").length;
  setTimeout(() => {
    point("#timeline", POINT_X, 0.5);
    setTimeout(() => {
      out.pointed = text();
      if (boxes) { point("#boxes", POINT_X, BOX_Y); out.tip = boxes.querySelector(".u-over").title; }
      const which = document.getElementById("which");
      out.choices = which.options.length;
      if (out.choices > 1) { which.value = "1"; which.dispatchEvent(new Event("change")); out.second = document.getElementById("name").textContent; }
      out.complaints = window.complaints;
      const pre = document.createElement("pre");
      pre.id = "answer";
      pre.textContent = JSON.stringify(out);
      document.body.replaceChildren(pre);
    }, 60);
  }, 60);
}, 100);
</script>
"""


def opened(text: str, folder: Path, point_x: float = 0.5, box_y: float = 0.5, width: int = 1280) -> Dict[str, Any]:
    """Open a page in Chromium, point at it, and answer what is to be seen."""
    read = READ.replace("POINT_X", str(point_x)).replace("BOX_Y", str(box_y))
    file = folder / "page.html"
    file.write_text(text.replace("<head>", "<head>" + PROBE, 1).replace("</body>", read + "</body>", 1), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},1500", f"--user-data-dir={folder}/profile"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def drawn(report: Report) -> int:
    return len(page.page_data(report)["storages"][0]["boxes"])


@pytest.fixture(scope="module")
def large() -> Report:
    return report_of(make_plan(chain_of_blocks(100)), "600 tasks")


@needs_chromium
@pytest.mark.parametrize("name", ["logreg", "mlp_adam"])
def test_curves_boxes_and_hover(name: str, tmp_path: Path) -> None:
    report = real_report(name)
    steps = len(report.order)
    seen = opened(page.page([report]), tmp_path, point_x=(report.peak_step + 0.5) / steps)
    assert seen["complaints"] == []
    assert int(seen["curves"]) == 3 and all(points > 100 for points in seen["ink"])
    assert int(seen["boxes"]) == drawn(report) and sum(seen["filled"]) > 5000
    ours, host = seen["pointed"]
    task = report.graph.tasks[report.order[report.peak_step]].label
    assert f"in force, step {report.peak_step + 1}: {task}" in ours
    for b in report.alive_at_peak:
        assert report.graph.buffers[b].label in ours
    assert report.graph.tasks[report.graph.natural_order[report.peak_step]].label in host
    assert seen["rows"] == min(25, len(report.largest))
    assert seen["atFirst"][0] == ours  # it opens at the peak


@needs_chromium
def test_600_tasks(large: Report, tmp_path: Path) -> None:
    assert len(large.order) == 600
    seen = opened(page.page([large]), tmp_path, point_x=300.5 / 600)
    assert seen["complaints"] == [] and int(seen["boxes"]) == drawn(large)
    assert f"step 301: {large.graph.tasks[large.order[300]].label}" in seen["pointed"][0]
    assert sum(seen["filled"]) > 2000


@needs_chromium
@pytest.mark.parametrize("width", [900, 1400])
def test_nothing_is_wider_than_the_window(width: int, tmp_path: Path) -> None:
    both = compare(explained("mlp_adam"), real_report("lenet"))
    seen = opened(page.page([both.before, both.after], together=both.tables), tmp_path, width=width)
    assert seen["complaints"] == [] and seen["wide"][0] <= seen["wide"][1]


@needs_chromium
def test_a_box_tells_its_variable(tmp_path: Path) -> None:
    graph = build_graph({"only": 4096}, [("make", (), ("only",)), ("use", ("only",), ())])
    seen = opened(page.page([report_of(make_plan(graph))]), tmp_path)
    assert seen["tip"] == "only: 4.00 KiB, steps 1 to 2"


@needs_chromium
def test_names_are_shown_as_they_are_and_never_run(tmp_path: Path) -> None:
    name = "</script><script>window.complaints.push('ran')</script><b>{{JS}}\u2028"
    graph = build_graph({name: 64}, [(f"make {name}", (), (name,))], keep=(name,))
    seen = opened(page.page([report_of(make_plan(graph), name)], summary=name), tmp_path)
    assert seen["complaints"] == []
    assert "<b>{{JS}}" in seen["name"] and "<b>{{JS}}" in seen["pointed"][0]


@needs_chromium
def test_several_functions_have_a_choice_and_odd_ones_are_drawn(tmp_path: Path) -> None:
    empty = report_of(make_plan(build_graph({}, [])), "no tasks at all")
    arena = real_report("lstm", storage="arena")
    seen = opened(page.page([arena, real_report("mlp")]), tmp_path)
    assert seen["choices"] == 2 and seen["second"] == "mlp" and seen["complaints"] == []
    assert int(seen["boxes"]) == drawn(arena)
    assert opened(page.page([empty]), tmp_path)["complaints"] == []
    assert opened(page.page([replace(arena, reserved=())]), tmp_path)["complaints"] == []


@needs_chromium
def test_a_broken_page_is_seen(tmp_path: Path) -> None:
    """The negative control: an error in the drawing is found."""
    text = page.page([real_report("logreg")]).replace("function draw() {", 'function draw() { console.error("broken");', 1)
    assert "broken" in opened(text, tmp_path)["complaints"]


# --- as node runs it -------------------------------------------------------------------------------------------------

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed: the script of the page cannot be run")
WIDTHS = pytest.mark.parametrize("width", [900, 1400])


def run_by_node(text: str, folder: Path, width: int) -> Any:
    file = folder / "page.html"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [str(NODE), str(Path(__file__).with_name("stub_dom.js")), str(file), str(width)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def explained(name: str, storage: str = "share", kept: bool = False) -> PrintableReport:
    """A report with all that a host adds: lines, parameters, advice, two host orders that are the same, a measured call."""
    report = real_report(name, storage=storage)
    known = tuple(Known(f"v{b}", made_at=f"model.py:{b % 7}  y{b % 7} = f(x)", near=b % 3 == 0) for b in range(len(report.graph.buffers)))
    heights = report.plan.schedule.timeline.heights
    steps = tuple(Step(t, 0, h, 0, h + 1000, 0) for t, h in zip(report.order, heights))
    natural = report.graph.natural_order
    return replace(
        report,
        known=known,
        given=(Need("parameters", 1000, 2),),
        advised=(Advice("paste this, which", 5000, ("hint(x, (3, 4))",)),),
        host_orders=(("one order", natural), ("another order", natural)),
        reserved=(replace(report.reserved[0], kept=kept, after_call=kept, bytes=report.plan.reserved_bytes),),
        measured=Profile(steps, max(heights) + 1000, 77, 0.1),
    )


def charts(seen: Any) -> Dict[str, Any]:
    return {chart["id"]: chart for chart in seen["charts"]}


def labels_at_the_left(chart: Any) -> List[Tuple[float, str]]:
    """(y, words) of the axis of bytes, from the top."""
    return sorted((op["args"][2], op["args"][0]) for op in chart["ops"] if op["what"] == "text" and op["align"] == "right")


@needs_node
@WIDTHS
@pytest.mark.parametrize(("name", "storage", "kept"), [("mlp_adam", "share", True), ("lstm", "arena", False), ("attention", "off", False)])
def test_storage_ends_at_what_is_reserved_and_nothing_lies_outside(name: str, storage: str, kept: bool, width: int, tmp_path: Path) -> None:
    report = explained(name, storage, kept)
    report = report if storage != "off" else replace(report, reserved=(replace(report.reserved[0], bytes=report.peak),))
    seen = run_by_node(page.page([report]), tmp_path, width)
    assert seen["problems"] == []
    chart = charts(seen)["boxes"]
    left, top, wide, high = chart["over"]
    assert chart["data"]["top"] == report.reserved[0].bytes and chart["width"] <= chart["place"] <= width
    boxes = [op["args"] for op in chart["ops"] if op["what"] == "fillRect"]
    assert len(boxes) == drawn(report)
    assert top <= min(y for _, y, _, _ in boxes) < top + 1  # the highest one ends where the axis ends, to a pixel
    for x, y, w, h in boxes:
        assert left <= x and x + w <= left + wide + 1 and top <= y and y + h <= top + high + 1
    for op in chart["ops"]:
        if op["what"] == "strokeRect":
            x, y, w, h = op["args"]
            edge = op["line"] / 2
            assert left <= x - edge and x + w + edge <= left + wide + 1 and top <= y - edge and y + h + edge <= top + high + 1
    ys = labels_at_the_left(chart)
    assert ys[0] == (top, in_bytes_of_the_page(report.reserved[0].bytes)) and all(two[0] - one[0] >= 12 for one, two in zip(ys, ys[1:]))


def in_bytes_of_the_page(size: int) -> str:
    """Three digits and a unit."""
    power = max(p for p in range(5) if size >= 1024**p)
    amount = size / 1024**power
    return f"{amount:.0f} {UNITS[power]}" if amount >= 100 else f"{amount:#.3g} {UNITS[power]}"


COLOURS = ("#e07b39", "#c9b037", "#b0705a", "#2563ab", "#8a4fa0")
"""Of the curves of orders, and of the measured one."""
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@needs_node
@WIDTHS
def test_every_order_of_the_text_has_a_curve_and_none_hides_another(width: int, tmp_path: Path) -> None:
    report = explained("mlp_adam")
    schedule = along(report.plan.schedule, report.graph, report.graph.natural_order, "another", "")
    report = replace(report, plan=replace(report.plan, schedule=schedule), best=report.plan.schedule)
    seen = run_by_node(page.page([report]), tmp_path, width)
    chart = charts(seen)["timeline"]
    named = ["host: one order", "host: another order", "best order known", "in force", "floor", "measured"]
    assert [words for words in chart["legend"] if any(words.startswith(name) for name in named)] == chart["legend"][1:]
    assert int(chart["data"]["curves"]) == len(named) == len(chart["legend"]) - 1
    text = str(report)
    assert all(name.split(":")[0] in text for name in named[:4])
    curves = [op for op in chart["ops"] if op["what"] == "stroke" and op["clip"] and op["stroke"] in COLOURS]
    assert len(curves) == 5
    for i, one in enumerate(curves):
        for other in curves[i + 1 :]:  # what is drawn later is thinner, or dotted: of two that are the same both are seen
            assert one["stroke"] != other["stroke"] and (one["line"] > other["line"] or other["dash"])
    left, top, wide, high = chart["over"]
    for curve in curves:
        assert all(left - 3 <= x <= left + wide + 3 and top - 1 <= y <= top + high + 1 for _, x, y in curve["args"])
    ys = labels_at_the_left(chart)
    assert len(ys) >= 4 and all(two[0] - one[0] >= 12 for one, two in zip(ys, ys[1:]))


@needs_node
@WIDTHS
def test_the_first_look_says_what_to_do_and_which_lines_hold_the_peak(width: int, tmp_path: Path) -> None:
    report = explained("mlp_adam")
    seen = run_by_node(page.page([report]), tmp_path, width)
    first, *_ = seen["cards"]
    assert "Peak in force" in first and "What to do: paste this, which saves 4.88 KiB" in first and "hint(x, (3, 4))" in first
    assert seen["sections"].index("cards") < seen["sections"].index("words") and not any("overview" in s or "side" in s for s in seen["sections"])
    lines = report.by_line()
    assert [row[-1] for row in seen["lines"]] == [line.where for line in lines[:12]]
    assert [row[0] for row in seen["needs"]] == [need.what for need in report.needs]
    ours, beside = seen["columns"]
    assert f"in force, step {report.peak_step + 1}:" in ours["head"] and "host: one order" in beside["head"]
    wanted = {(report.name_of(b), ("near " if report.known_of(b).near else "") + report.known_of(b).made_at) for b in report.alive_at_peak}
    assert {(row[0], row[-1]) for row in ours["rows"]} == wanted
    assert seen["others"] == ["host: one order", "host: another order"]


@needs_node
@WIDTHS
def test_several_functions_have_an_overview(width: int, tmp_path: Path) -> None:
    one, two = explained("mlp_adam"), real_report("mlp")
    seen = run_by_node(page.page([one, two]), tmp_path, width)
    assert seen["problems"] == [] and [row[0] for row in seen["overview"][1:]] == ["mlp_adam", "mlp"]
    assert seen["overview"][1][1:4] == [f"{n:,}" for n in (one.host_peak, one.peak, one.floor)]


@needs_node
@WIDTHS
def test_two_reports_side_by_side(width: int, tmp_path: Path) -> None:
    before, after = explained("mlp_adam"), replace(explained("mlp"), measured=None)
    both = compare(before, PrintableComparison(after, Profile((), 0, 0, 0.0)))
    path = both.to_html(str(tmp_path / "both.html"))
    seen = run_by_node(Path(path).read_text(encoding="utf-8"), tmp_path, width)
    assert seen["problems"] == [] and seen["name"] == "mlp_adam"
    rows = {row[0]: row[1:] for row in seen["changes"]}
    shown = in_bytes_of_the_page
    assert rows["peak"] == [shown(before.peak), shown(after.peak), "−" + shown(before.peak - after.peak)]
    assert rows["measured peak"][1] == "–" and any(row.startswith("model.py:") for row in rows)
    sides = [charts(seen)[f"side{i}"] for i in (0, 1)]
    assert labels_at_the_left(sides[0]) == labels_at_the_left(sides[1])  # one scale
    assert all(side["width"] <= side["place"] for side in sides)
    assert (2 * sides[0]["place"] < width) == (width == 1400)  # beside each other where there is room, else below
    text, data = str(both), json.loads(Path(both.to_json(str(tmp_path / "both.json"))).read_text())
    assert f"{before.peak:,}" in text and f"{after.peak - before.peak:+,}" in text
    assert data["before"]["peak_bytes"] == before.peak and data["after"]["peak_bytes"] == after.peak
    (peak,) = [row for row in data["tables"]["bytes"] if row["what"] == "peak"]
    assert (peak["before"], peak["after"]) == (before.peak, after.peak)
    with pytest.raises(TypeError, match="takes two reports, .* not str"):
        compare(before, "after")  # type: ignore[arg-type]


@needs_node
def test_odd_reports_are_drawn_by_node_too(large: Report, tmp_path: Path) -> None:
    empty = report_of(make_plan(build_graph({}, [])), "no tasks at all")
    name = "</script><script>nothing()</script><b>{{JS}}\u2028"
    odd = build_graph({name: 64}, [(f"make {name}", (), (name,))], keep=(name,))
    for report in (empty, large, replace(real_report("lstm"), reserved=()), report_of(make_plan(odd), name)):
        seen = run_by_node(page.page([report], summary=name), tmp_path, 900)
        assert seen["problems"] == [] and seen["name"] == report.name


@needs_node
def test_a_broken_page_is_seen_by_node(tmp_path: Path) -> None:
    """The negative control: an error in the drawing is found, and so is a box that is drawn too high."""
    text = page.page([real_report("logreg")])
    assert any(
        "broken" in trouble
        for trouble in run_by_node(text.replace("function draw() {", 'function draw() { throw "broken";', 1), tmp_path, 900)["problems"]
    )
    high = run_by_node(text.replace('u.valToPos(box.high, "y", true)', 'u.valToPos(box.high, "y", true) - 40', 1), tmp_path, 900)
    chart = charts(high)["boxes"]
    assert min(op["args"][1] for op in chart["ops"] if op["what"] == "fillRect") < chart["over"][1]


def test_the_page_asks_for_nothing_from_outside(large: Report) -> None:
    text = page.page([large])
    assert not re.search(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=[\"'](?!data:)", text)
    assert "@import" not in text and "fetch(" not in text and "XMLHttpRequest" not in text
    assert len(text) < 1_000_000

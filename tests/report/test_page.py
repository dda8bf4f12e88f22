"""The page as a browser shows it: opened in headless Chromium, pointed at, and read back."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict

import pytest

from tests.report.plans import chain_of_blocks, real_report
from theano_memopt.planner.model import build_graph
from theano_memopt.planner.plan import make_plan
from theano_memopt.report import page
from theano_memopt.report.model import Report
from theano_memopt.report.printable import report_of

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


def opened(text: str, folder: Path, point_x: float = 0.5, box_y: float = 0.5) -> Dict[str, Any]:
    """Open a page in Chromium, point at it, and answer what is to be seen."""
    read = READ.replace("POINT_X", str(point_x)).replace("BOX_Y", str(box_y))
    file = folder / "page.html"
    file.write_text(text.replace("<head>", "<head>" + PROBE, 1).replace("</body>", read + "</body>", 1), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,1500", f"--user-data-dir={folder}/profile"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stderr[-2000:]
    return json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


def drawn(report: Report) -> int:
    return sum(b.producer is not None and b.size > 0 for b in report.graph.buffers)


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
    host, ours = seen["pointed"]
    task = report.graph.tasks[report.order[report.peak_step]].label
    assert f"in force, step {report.peak_step + 1}: {task}" in ours
    for b in report.alive_at_peak:
        assert report.graph.buffers[b].label in ours
    assert report.graph.tasks[report.graph.natural_order[report.peak_step]].label in host
    assert seen["rows"] == min(25, len(report.largest))
    assert seen["atFirst"][1] == ours  # it opens at the peak


@needs_chromium
def test_600_tasks(large: Report, tmp_path: Path) -> None:
    assert len(large.order) == 600
    seen = opened(page.page([large]), tmp_path, point_x=300.5 / 600)
    assert seen["complaints"] == [] and int(seen["boxes"]) == 600
    assert f"step 301: {large.graph.tasks[large.order[300]].label}" in seen["pointed"][1]
    assert sum(seen["filled"]) > 2000


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
    assert "<b>{{JS}}" in seen["name"] and "<b>{{JS}}" in seen["pointed"][1]


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


def test_the_page_asks_for_nothing_from_outside(large: Report) -> None:
    text = page.page([large])
    assert not re.search(r"<(?:script|img|iframe|link)[^>]+(?:src|href)=[\"'](?!data:)", text)
    assert "@import" not in text and "fetch(" not in text and "XMLHttpRequest" not in text
    assert len(text) < 1_000_000

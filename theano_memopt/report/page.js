"use strict";
/* Draws the reports that lie in #data. Words: a step is a place in an order; a box is a variable from birth to death at its address. */
(function () {
  const { reports, together } = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const INK = { ours: "#2563ab", floor: "#3c8d5a", measured: "#8a4fa0" };
  const HOSTS = ["#e07b39", "#c9b037", "#b0705a", "#7d8896"];
  const HOW = { kept: " Each row is a cell or a variable, as high as its bytes.", arena: " Height is the address in the block; what lies outside it is above.", "given back": " Boxes lie on top of each other and sink when one below them goes." };
  const PALETTE = ["#7fa8d9", "#e8b07a", "#8dc6a0", "#d99aa5", "#b3a1d6", "#d8c56d", "#83c5cc", "#c3a893", "#a3b86c", "#e29fcf"];
  const GUTTER = 84;
  let report, timeline, storageChart, charts = [], boxes = [], pointed = null, shown = -1;

  function inBytes(size) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0, amount = size;
    while (Math.abs(amount) >= 1024 && unit < 4) { amount /= 1024; unit++; }
    return unit === 0 ? `${size} B` : `${amount >= 100 ? amount.toFixed(0) : amount.toPrecision(3)} ${units[unit]}`;
  }
  const share = (part, whole) => (whole ? `${(100 * part / whole).toPrecision(3)} %` : "0 %");

  function make(tag, text, name) {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    return node;
  }

  const cell = (text, name) => make("td", text, name);
  const row = (...cells) => { const tr = make("tr"); tr.append(...cells); return tr; };
  const inForce = (of) => of.orders[of.orders.length - 1];
  /* Orders of the same tasks, of which is known what is alive. */
  const besides = () => report.orders.slice(0, -1).filter((order) => order.lives);
  const lineOf = (b) => (b.near ? "near " : "") + b.at;

  /* ---- the charts ---- */

  const axes = (label, top, ends) => [
    { label, labelSize: 20, size: 34, values: (u, steps) => steps.map((s) => (Number.isInteger(s) ? s : "")) },
    { size: GUTTER, values: (u, sizes) => sizes.map(inBytes), splits: () => ticks(top, ends) },
  ];

  /* Lines at round numbers of KiB, MiB: powers of two, four to eight of them; and the top itself, where the chart ends at a figure. */
  function ticks(top, ends) {
    let gap = 1;
    while (top / gap > 7) gap *= 2;
    const found = [];
    for (let y = 0; y <= (ends ? top - gap / 2 : top); y += gap) found.push(y);
    return ends ? found.concat([top]) : found;
  }

  const options = (place, height, extra) => Object.assign({
    width: Math.max(320, place.clientWidth), height,
    cursor: { sync: { key: "step" }, drag: { x: true, y: false }, points: { show: false }, dataIdx: (u, series, closest, x) => Math.max(0, Math.min(u.data[0].length - 1, Math.floor(x))) },
  }, extra);

  const whole = (curve) => curve.concat(curve.length ? [curve[curve.length - 1]] : []);

  const highest = (of) => Math.max(of.floor, 1, ...of.orders.map((o) => Math.max(0, ...o.heights)), ...(of.measured ? of.measured.heights : []));

  /* One curve per order. Where two are the same, the wider one, drawn before, stands out on both sides of the other. */
  function drawCurves(of, place, height, top, hooks) {
    const stepped = uPlot.paths.stepped({ align: 1 }), last = of.orders.length - 1;
    const curve = (label, stroke, more) => Object.assign({ label, stroke, width: 2, paths: stepped, points: { show: false }, value: (u, v) => (v == null ? "–" : inBytes(v)) }, more);
    const count = Math.max(...of.orders.map((order) => order.heights.length)) + 1;
    const steps = Array.from({ length: count }, (_, i) => i);
    const series = [{ label: "step", value: (u, v) => (v == null ? "–" : String(Math.min(v + 1, of.tasks.length))) }];
    const data = [steps];
    of.orders.forEach((order, i) => {
      const ink = i === last ? INK.ours : HOSTS[i % HOSTS.length];
      series.push(curve(order.name, ink, { width: 2 + 1.75 * (last - i), fill: i === last ? "rgba(37,99,171,.16)" : undefined }));
      data.push(steps.map((i) => whole(order.heights)[i] ?? null));
    });
    series.push(curve("floor" + of.atSizes, INK.floor, { dash: [8, 5], width: 1.5 }));
    data.push(steps.map(() => of.floor));
    if (of.measured) {
      series.push(curve("measured", INK.measured, { width: 1.5, dash: [3, 3] }));
      data.push(steps.map((i) => whole(of.measured.heights)[i] ?? null));
    }
    return new uPlot(options(place, height, {
      scales: { x: { time: false }, y: { range: () => [0, top] } }, axes: axes("step", top, false), series,
      hooks: Object.assign({ ready: [(u) => { u.root.dataset.curves = series.length - 1; }] }, hooks),
    }), data, place);
  }

  function drawTimeline() {
    if (timeline) timeline.destroy();
    timeline = drawCurves(report, at("timeline"), 300, 1.06 * highest(report), { setCursor: [pointAt] });
  }

  function drawBoxes() {
    const storage = report.storages[at("storage").value || 0];
    if (storageChart) storageChart.destroy();
    storageChart = null;
    if (!storage) return;
    boxes = storage.boxes.map(([buffer, born, dead, low, high]) => ({ buffer, born, dead, low, high }));
    at("meaning").textContent = `${inBytes(storage.bytes)} reserved, ${inBytes(storage.without)} without the plan: ${storage.meaning}.` + HOW[storage.by]
      + (storage.top > storage.bytes ? ` The dashed line is what is reserved; ${inBytes(storage.top)} are held at one step.` : "");
    const steps = whole(inForce(report).heights).map((_, i) => i), top = Math.max(storage.top, storage.bytes, 1);
    storageChart = new uPlot(options(at("boxes"), 340, {
      scales: { x: { time: false }, y: { range: () => [0, top] } }, axes: axes("step, in force", top, true), legend: { show: false },
      series: [{}, { points: { show: false } }],
      hooks: { draw: [(u) => paintBoxes(u, storage)], setCursor: [pointAt, pointBox], ready: [(u) => { u.root.dataset.boxes = boxes.length; u.root.dataset.top = top; }] },
    }), [steps, steps.map(() => null)], at("boxes"));
  }

  function paintBoxes(u, storage) {
    const ctx = u.ctx, ratio = window.devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const box of boxes) paintBox(u, ctx, ratio, box);
    if (storage.top > storage.bytes) {
      const y = u.valToPos(storage.bytes, "y", true);
      ctx.strokeStyle = "#1d2733";
      ctx.lineWidth = ratio;
      ctx.setLineDash([8 * ratio, 5 * ratio]);
      ctx.beginPath();
      ctx.moveTo(u.bbox.left, y);
      ctx.lineTo(u.bbox.left + u.bbox.width, y);
      ctx.stroke();
      ctx.setLineDash([]);
    }
    ctx.restore();
  }

  /* The edge lies inside the box, so that the highest one is not cut. */
  function paintBox(u, ctx, ratio, box) {
    const buffer = report.buffers[box.buffer];   /* none where a cell is held open */
    const x = u.valToPos(box.born, "x", true), y = u.valToPos(box.high, "y", true);
    const w = u.valToPos(box.dead, "x", true) - x, h = u.valToPos(box.low, "y", true) - y;
    ctx.fillStyle = buffer ? PALETTE[box.buffer % PALETTE.length] : "#e9edf1";
    ctx.globalAlpha = pointed !== null && pointed !== box.buffer ? 0.55 : 1;
    ctx.fillRect(x, y, Math.max(w, 1), Math.max(h, 0.5));
    if (h > 3 * ratio && w > 3 * ratio) {
      const edge = (pointed === box.buffer ? 2.5 : buffer && buffer.kept ? 1.5 : 0.5) * ratio;
      ctx.lineWidth = edge;
      ctx.strokeStyle = pointed === box.buffer || (buffer && buffer.kept) ? "#1d2733" : "#ffffff";
      ctx.strokeRect(x + edge / 2, y + edge / 2, w - edge, h - edge);
    }
    if (h > 13 * ratio && w > 42 * ratio) {
      ctx.save();
      ctx.beginPath();
      ctx.rect(x, y, w - 4 * ratio, h);
      ctx.clip();
      ctx.fillStyle = "#1d2733";
      ctx.fillText(buffer ? buffer.name + (w > 150 * ratio ? `  ${inBytes(buffer.bytes)}` : "") : "held open", x + 5 * ratio, y + h / 2);
      ctx.restore();
    }
  }

  /* ---- hover ---- */

  function pointAt(u) {
    if (u.cursor.left == null || u.cursor.left < 0) return;
    show(Math.floor(u.posToVal(u.cursor.left, "x")));
  }

  function pointBox(u) {
    const x = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : -1, y = u.cursor.top >= 0 ? u.posToVal(u.cursor.top, "y") : -1;
    const found = boxes.find((b) => b.born <= x && x < b.dead && b.low <= y && y < b.high);
    const buffer = found && report.buffers[found.buffer];
    if ((buffer ? found.buffer : null) !== pointed) {
      pointed = buffer ? found.buffer : null;
      const life = buffer && inForce(report).lives[found.buffer];
      u.redraw(false);
      u.over.title = buffer ? `${buffer.name}: ${inBytes(buffer.bytes)}, steps ${life[0] + 1} to ${life[1]}` : "";
    }
  }

  function show(step) {
    const count = report.tasks.length;
    step = Math.max(0, Math.min(count - 1, step));
    if (!count || step === shown) return;
    shown = step;
    const other = besides()[at("other").value || 0];
    at("alive").replaceChildren(column(inForce(report), step, "ours"), ...(other ? [column(other, step, "host")] : []));
    at("near").hidden = !report.buffers.some((b) => b.near);
  }

  function column(order, step, name) {
    const div = make("div", undefined, name);
    const alive = order.lives.map((life, b) => [life, b]).filter(([life, b]) => life[0] <= step && step < life[1] && !report.buffers[b].input)
      .map(([, b]) => report.buffers[b]).sort((a, b) => b.bytes - a.bytes);
    div.append(make("h3", `${order.name}, step ${step + 1}: ${report.tasks[order.order[step]]}, ${inBytes(order.heights[step])} live in ${alive.length} variables`));
    const table = make("table"), most = Math.max(1, ...alive.map((b) => b.bytes));
    for (const buffer of alive.slice(0, 60)) table.append(row(cell(buffer.name), cell(inBytes(buffer.bytes), "number"), bar(buffer.bytes / most), cell(buffer.type), cell(lineOf(buffer), "line")));
    div.append(table);
    return div;
  }

  function bar(part) {
    const td = make("td"), line = make("span", undefined, "bar");
    line.style.width = `${Math.round(60 * part)}px`;
    td.append(line);
    return td;
  }

  /* ---- words and tables ---- */

  function card(name, value, title, ...below) {
    const div = make("div", undefined, `card ${name}`);
    div.append(make("small", title), make("b", value), ...below);
    return div;
  }

  /* What to do stands in the card of the peak. */
  function advice() {
    if (!report.advice.length) return [make("p", `What to do: ${report.nothingToDo}.`)];
    return report.advice.flatMap((a) => [
      make("p", `What to do: ${a.text}${a.saves === null ? "" : ` saves ${inBytes(a.saves)}${a.provided && `, ${a.provided}`}`}`), ...(a.paste.length ? [make("pre", a.paste.join("\n"))] : [])]);
  }

  function drawCards() {
    const saved = report.hostPeak ? 1 - report.peak / report.hostPeak : 0;
    const [storage] = report.storages, small = (text) => make("small", text);
    at("cards").replaceChildren(
      card("ours", inBytes(report.peak), "Peak in force", small(`${report.gap}; ${saved > 0.0005 ? `${share(saved, 1)} less than without the plan` : "the same as without the plan"}`), ...advice()),
      card("host", inBytes(report.hostPeak), "Peak without the plan", small(report.hostPeaks.map(([name, peak]) => `${name} ${inBytes(peak)}`).join(", "))),
      card("floor", inBytes(report.floor), "Floor: no order needs less" + report.atSizes, small(report.verdict)),
      ...(storage ? [card("store", inBytes(storage.bytes), `Reserved: ${storage.name}`, small(`${inBytes(storage.without)} without the plan; ${inBytes(report.kept)} kept after a call`))] : []),
      ...(report.measured ? [card("", inBytes(report.measured.peak), "Measured peak", small(`one call; ${inBytes(report.measured.kept)} kept after it`))] : []));
  }

  function drawSums() {
    const most = Math.max(1, ...report.byLine.map(([, size]) => size)), everything = report.needs.reduce((sum, [, size]) => sum + size, 0);
    at("lines").tBodies[0].replaceChildren(...report.byLine.slice(0, 12).map(([where, size]) =>
      row(cell(inBytes(size), "number"), cell(share(size, report.peak), "number"), bar(size / most), cell(where || "no line is known", "line"))));
    at("needs").tBodies[0].replaceChildren(...report.needs.map(([what, size, count]) =>
      row(cell(what), cell(count ? String(count) : "", "number"), cell(inBytes(size), "number"), cell(share(size, everything), "number"))));
  }

  function drawLargest() {
    const lives = inForce(report).lives;
    const found = report.buffers.map((b, i) => [b, i]).filter(([b]) => !b.input).sort((a, b) => b[0].bytes - a[0].bytes).slice(0, 25);
    at("largest").tBodies[0].replaceChildren(...found.map(([b, i]) => {
      const storage = b.shares.length ? `shares with ${b.shares.join(", ")}` : b.alone ? `alone: ${b.alone}` : "alone";
      return row(cell(b.name), cell(b.bytes.toLocaleString("en"), "number"), cell(b.type), cell(`${lives[i][0] + 1} – ${lives[i][1]}`, "number"), cell(storage), cell(lineOf(b), "line"));
    }));
  }

  function drawWords() {
    at("repeats").innerHTML = report.repeats; // made by repeats_page.py, names escaped
    const said = [...report.owners, ...report.notes, `Sizes${report.atSizes ? ", some of them assumed" : ""}: ${report.sizesFrom}.`, `In force: ${report.verdict}.`];
    at("words").replaceChildren(...said.map((sentence) => make("p", sentence)));
  }

  function drawOverview() {
    at("overview").hidden = reports.length < 2;
    const number = (n) => cell(n.toLocaleString("en"), "number");
    at("overview").querySelector("tbody").replaceChildren(...reports.map((r, i) => {
      const tr = row(cell(r.name), number(r.hostPeak), number(r.peak), number(r.floor), cell(r.gap), number(r.hostKept), number(r.kept));
      if (r === report) tr.className = "shown";
      tr.addEventListener("click", () => { at("which").value = String(i); draw(); });
      return tr;
    }));
  }

  /* ---- two reports side by side ---- */

  function drawSide() {
    const [before, after] = reports, top = 1.06 * Math.max(highest(before), highest(after));
    at("side").hidden = false;
    const number = (n) => cell(n === null ? "–" : inBytes(n), "number");
    for (const [title, rows] of together) {
      const table = make("table"), head = make("tr");
      head.append(...[title, "before", "after", "change"].map((word, i) => make("th", word, i ? "number" : "")));
      table.append(head, ...rows.map(([what, one, two]) => row(cell(what, "line"), number(one), number(two), cell(one === null || two === null ? "" : (two > one ? "+" : two < one ? "−" : "") + inBytes(Math.abs(two - one)), "number"))));
      at("changes").append(table);
    }
    charts = [before, after].map((of, i) => {
      at(`sideName${i}`).textContent = `${i ? "after" : "before"}: ${of.name}${of.at && `, ${of.at}`}, peak ${inBytes(of.peak)}`;
      return drawCurves(of, at(`side${i}`), 260, top, {});
    });
  }

  function draw() {
    report = reports[at("which").value || 0];
    shown = -1;
    pointed = null;
    at("name").textContent = report.at ? `${report.name}, ${report.at}` : report.name;
    const option = (text, i) => { const o = make("option", text); o.value = i; return o; };
    at("storage").replaceChildren(...report.storages.map((s, i) => option(`${s.name}${i ? "" : " (in force)"}`, i)));
    at("other").replaceChildren(...besides().map((o, i) => option(o.name, i)));
    at("beside").hidden = !besides().length;
    drawOverview();
    drawCards();
    drawSums();
    drawTimeline();
    drawBoxes();
    drawLargest();
    drawWords();
    const heights = inForce(report).heights;
    show(heights.indexOf(Math.max(...heights)));
  }

  at("which").replaceChildren(...reports.map((r, i) => { const o = make("option", r.name); o.value = i; return o; }));
  at("choice").hidden = reports.length < 2;
  at("which").addEventListener("change", draw);
  at("storage").addEventListener("change", drawBoxes);
  at("other").addEventListener("change", () => { const step = shown; shown = -1; show(step); });
  window.addEventListener("resize", () => {
    for (const chart of [timeline, storageChart, ...charts]) if (chart) chart.setSize({ width: Math.max(320, chart.root.parentNode.clientWidth), height: chart.height });
  });
  if (together) drawSide();
  draw();
})();

"use strict";
/* Draws the reports that lie in #data. Words: a step is a place in an order; a box is a variable from birth to death at its address. */
(function () {
  const reports = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const INK = { host: "#e07b39", ours: "#2563ab", floor: "#3c8d5a", measured: "#8a4fa0" };
  const PALETTE = ["#7fa8d9", "#e8b07a", "#8dc6a0", "#d99aa5", "#b3a1d6", "#d8c56d", "#83c5cc", "#c3a893", "#a3b86c", "#e29fcf"];
  const GUTTER = 84;
  let report, timeline, storageChart, boxes = [], pointed = null, shown = -1;

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

  /* ---- the charts ---- */

  const axes = (label) => [
    { label, labelSize: 20, size: 34, values: (u, steps) => steps.map((s) => (Number.isInteger(s) ? s : "")) },
    { size: GUTTER, values: (u, sizes) => sizes.map(inBytes), splits: (u, axis, low, high) => ticks(low, high) },
  ];

  /* Lines at round numbers of KiB, MiB: powers of two, four to eight of them. */
  function ticks(low, high) {
    let gap = 1;
    while ((high - low) / gap > 7) gap *= 2;
    const found = [];
    for (let y = Math.ceil(low / gap) * gap; y <= high; y += gap) found.push(y);
    return found;
  }

  const options = (height, extra) => Object.assign({
    width: Math.max(320, at("timeline").clientWidth), height,
    cursor: { sync: { key: "step" }, drag: { x: true, y: false }, points: { show: false }, dataIdx: (u, series, closest, x) => Math.max(0, Math.min(u.data[0].length - 1, Math.floor(x))) },
  }, extra);

  const whole = (curve) => curve.concat(curve.length ? [curve[curve.length - 1]] : []);

  function drawTimeline() {
    const [host, ours] = report.orders;
    const steps = whole(ours.heights).map((_, i) => i);
    const stepped = uPlot.paths.stepped({ align: 1 });
    const top = 1.06 * Math.max(report.floor, ...host.heights, ...ours.heights, ...(report.measured ? report.measured.heights : [0]), 1);
    const curve = (label, stroke, more) => Object.assign({ label, stroke, width: 2, paths: stepped, points: { show: false }, value: (u, v) => (v == null ? "–" : inBytes(v)) }, more);
    const series = [
      { label: "step", value: (u, v) => (v == null ? "–" : String(Math.min(v + 1, report.tasks.length))) },
      curve(host.name, INK.host, { fill: "rgba(224,123,57,.10)" }),
      curve("in force", INK.ours, { fill: "rgba(37,99,171,.16)" }),
      curve("floor" + report.atSizes, INK.floor, { dash: [8, 5], width: 1.5 }),
    ];
    const data = [steps, whole(host.heights), whole(ours.heights), steps.map(() => report.floor)];
    if (report.measured) {
      series.push(curve("measured", INK.measured, { width: 1.5, dash: [3, 3] }));
      data.push(steps.map((i) => whole(report.measured.heights)[i] ?? null));
    }
    if (timeline) timeline.destroy();
    timeline = new uPlot(options(300, {
      scales: { x: { time: false }, y: { range: () => [0, top] } }, axes: axes("step"), series,
      hooks: { setCursor: [pointAt], ready: [(u) => { u.root.dataset.curves = series.length - 1; }] },
    }), data, at("timeline"));
  }

  function layOut(storage) {
    const lives = report.orders[1].lives;
    const real = report.buffers.map((b, i) => i).filter((i) => !report.buffers[i].input && report.buffers[i].bytes > 0);
    const base = {};
    let top = 0;
    const stack = (rows) => rows.sort((a, b) => b[1] - a[1] || a[0] - b[0]).forEach(([row, size]) => { base[row] = top; top += size; });
    if (storage.by === "cells") stack(storage.cells.map((size, c) => [c, size]));
    if (storage.by === "none") stack(real.map((i) => [i, report.buffers[i].bytes]));
    if (storage.by === "arena") {
      top = storage.height;
      stack(real.filter((i) => storage.offsets[i] == null).map((i) => [i, report.buffers[i].bytes]));
    }
    const low = (i) => (storage.by === "cells" ? base[storage.cellOf[i]] : storage.by === "arena" && storage.offsets[i] != null ? storage.offsets[i] : base[i]);
    boxes = real.filter((i) => low(i) !== undefined).map((i) => ({ buffer: i, born: lives[i][0], dead: lives[i][1], low: low(i), high: low(i) + report.buffers[i].bytes }));
    return Math.max(top, 1);
  }

  function drawBoxes() {
    const storage = report.storages[at("storage").value || 0];
    if (storageChart) storageChart.destroy();
    storageChart = null;
    if (!storage) return;
    const top = layOut(storage);
    at("meaning").textContent = `${inBytes(storage.bytes)} reserved, ${inBytes(storage.without)} without the plan: ${storage.meaning}.`
      + (storage.by === "cells" ? " Each row is a cell, as high as its bytes." : storage.by === "arena" ? " Height is the address in the arena." : " Each variable has a row of its own.");
    const steps = whole(report.orders[1].heights).map((_, i) => i);
    storageChart = new uPlot(options(340, {
      scales: { x: { time: false }, y: { range: () => [0, top] } }, axes: axes("step, in force"), legend: { show: false },
      series: [{}, { points: { show: false } }],
      hooks: { draw: [paintBoxes], setCursor: [pointAt, pointBox], ready: [(u) => { u.root.dataset.boxes = boxes.length; }] },
    }), [steps, steps.map(() => null)], at("boxes"));
  }

  function paintBoxes(u) {
    const ctx = u.ctx, ratio = window.devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.font = `${11 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const box of boxes) {
      const buffer = report.buffers[box.buffer];
      const x = u.valToPos(box.born, "x", true), y = u.valToPos(box.high, "y", true);
      const w = u.valToPos(box.dead, "x", true) - x, h = u.valToPos(box.low, "y", true) - y;
      ctx.fillStyle = PALETTE[box.buffer % PALETTE.length];
      ctx.globalAlpha = pointed && pointed !== box ? 0.55 : 1;
      ctx.fillRect(x, y, Math.max(w, 1), Math.max(h, 0.5));
      if (h > 3 * ratio && w > 3 * ratio) {
        ctx.lineWidth = (pointed === box ? 2.5 : buffer.kept ? 1.5 : 0.5) * ratio;
        ctx.strokeStyle = pointed === box || buffer.kept ? "#1d2733" : "#ffffff";
        ctx.strokeRect(x, y, w, h);
      }
      if (h > 13 * ratio && w > 42 * ratio) {
        ctx.save();
        ctx.beginPath();
        ctx.rect(x, y, w - 4 * ratio, h);
        ctx.clip();
        ctx.fillStyle = "#1d2733";
        ctx.fillText(buffer.name + (w > 150 * ratio ? `  ${inBytes(buffer.bytes)}` : ""), x + 5 * ratio, y + h / 2);
        ctx.restore();
      }
    }
    ctx.restore();
  }

  /* ---- hover ---- */

  function pointAt(u) {
    if (u.cursor.left == null || u.cursor.left < 0) return;
    show(Math.floor(u.posToVal(u.cursor.left, "x")));
  }

  function pointBox(u) {
    const x = u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : -1, y = u.cursor.top >= 0 ? u.posToVal(u.cursor.top, "y") : -1;
    const found = boxes.find((b) => b.born <= x && x < b.dead && b.low <= y && y < b.high) || null;
    if (found !== pointed) {
      pointed = found;
      u.redraw(false);
      u.over.title = found ? `${report.buffers[found.buffer].name}: ${inBytes(report.buffers[found.buffer].bytes)}, steps ${found.born + 1} to ${found.dead}` : "";
    }
  }

  function show(step) {
    const count = report.tasks.length;
    step = Math.max(0, Math.min(count - 1, step));
    if (!count || step === shown) return;
    shown = step;
    at("alive").replaceChildren(...report.orders.map((order, which) => column(order, step, which ? "ours" : "host")));
  }

  function column(order, step, name) {
    const div = make("div", undefined, name);
    const alive = order.lives.map((life, b) => [life, b]).filter(([life, b]) => life[0] <= step && step < life[1] && !report.buffers[b].input)
      .map(([, b]) => report.buffers[b]).sort((a, b) => b.bytes - a.bytes);
    div.append(make("h3", `${order.name}, step ${step + 1}: ${report.tasks[order.order[step]]}, ${inBytes(order.heights[step])} live in ${alive.length} variables`));
    const table = make("table"), most = Math.max(1, ...alive.map((b) => b.bytes));
    for (const buffer of alive.slice(0, 60)) {
      const row = make("tr"), cell = make("td"), bar = make("span", undefined, "bar");
      bar.style.width = `${Math.round(90 * buffer.bytes / most)}px`;
      cell.append(bar);
      row.append(make("td", buffer.name), make("td", inBytes(buffer.bytes), "number"), cell, make("td", buffer.type));
      table.append(row);
    }
    div.append(table);
    return div;
  }

  /* ---- words and tables ---- */

  function card(name, value, title, below) {
    const div = make("div", undefined, `card ${name}`);
    div.append(make("small", title), make("b", value), make("small", below));
    return div;
  }

  function drawCards() {
    const saved = report.hostPeak ? 1 - report.peak / report.hostPeak : 0;
    const [storage] = report.storages;
    at("cards").replaceChildren(
      card("host", inBytes(report.hostPeak), "Peak without the plan", report.hostPeaks.map(([name, peak]) => `${name} ${inBytes(peak)}`).join(", ")),
      card("ours", inBytes(report.peak), "Peak in force", saved > 0.0005 ? `${share(saved, 1)} less` : "the same"),
      card("floor", inBytes(report.floor), "Floor: no order needs less" + report.atSizes, report.verdict),
      ...(storage ? [card("store", inBytes(storage.bytes), `Reserved: ${storage.name}`, `${inBytes(storage.without)} without the plan`)] : []),
      ...(report.measured ? [card("", inBytes(report.measured.peak), "Measured peak", "one call")] : []));
  }

  function drawLargest() {
    const lives = report.orders[1].lives;
    const found = report.buffers.map((b, i) => [b, i]).filter(([b]) => !b.input).sort((a, b) => b[0].bytes - a[0].bytes).slice(0, 25);
    at("largest").tBodies[0].replaceChildren(...found.map(([b, i]) => {
      const row = make("tr");
      const storage = b.shares.length ? `shares with ${b.shares.join(", ")}` : b.alone ? `alone: ${b.alone}` : "alone";
      row.append(make("td", b.name), make("td", b.bytes.toLocaleString("en"), "number"), make("td", b.type),
        make("td", `${lives[i][0] + 1} – ${lives[i][1]}`, "number"), make("td", storage), make("td", b.at));
      return row;
    }));
  }

  function drawWords() {
    at("repeats").innerHTML = report.repeats; // made by repeats_page.py, names escaped
    const said = [...report.owners, ...report.notes, `Sizes${report.atSizes ? ", some of them assumed" : ""}: ${report.sizesFrom}.`, `In force: ${report.verdict}.`];
    at("words").replaceChildren(...said.map((sentence) => make("p", sentence)));
  }

  function draw() {
    report = reports[at("which").value || 0];
    shown = -1;
    pointed = null;
    at("name").textContent = report.name;
    at("storage").replaceChildren(...report.storages.map((s, i) => { const o = make("option", `${s.name}${i ? "" : " (in force)"}`); o.value = i; return o; }));
    drawCards();
    drawTimeline();
    drawBoxes();
    drawLargest();
    drawWords();
    const heights = report.orders[1].heights;
    show(heights.indexOf(Math.max(...heights)));
  }

  at("which").replaceChildren(...reports.map((r, i) => { const o = make("option", r.name); o.value = i; return o; }));
  at("choice").hidden = reports.length < 2;
  at("which").addEventListener("change", draw);
  at("storage").addEventListener("change", drawBoxes);
  window.addEventListener("resize", () => {
    const width = Math.max(320, at("timeline").clientWidth);
    for (const chart of [timeline, storageChart]) if (chart) chart.setSize({ width, height: chart.height });
  });
  draw();
})();

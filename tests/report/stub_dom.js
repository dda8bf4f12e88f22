"use strict";
/* Just enough of a browser to run the page under node: elements, events, and canvases that write down what is painted on them.

       node stub_dom.js page.html WIDTH   ->   JSON: what the page shows, and the rectangles, lines and words of each canvas

   Nothing is laid out. An element with the class "chart" is as wide as WIDTH less the margins of the body, or half of that in a column of two. */
const fs = require("fs"), vm = require("vm");
const html = fs.readFileSync(process.argv[2], "utf8"), width = Number(process.argv[3]);
const margins = width <= 1150 ? 36 : 56, inner = Math.min(width, 1280) - margins;
const problems = [];

class Paint {
  constructor(canvas) { this.canvas = canvas; this.ops = []; this.clips = []; this.path = null; this.globalAlpha = 1; }
  note(what, args) { this.ops.push({ what, args, fill: this.fillStyle, stroke: this.strokeStyle, line: this.lineWidth, clip: this.clips[this.clips.length - 1] || null, align: this.textAlign, dash: this.dash || [], font: this.font }); }
  save() { this.clips.push(this.clips[this.clips.length - 1] || null); }
  restore() { this.clips.pop(); }
  beginPath() { this.path = []; }
  rect(...a) { this.path = this.path || []; this.path.push(["rect", ...a]); }
  moveTo(...a) { this.path.push(["M", ...a]); }
  lineTo(...a) { this.path.push(["L", ...a]); }
  closePath() {}
  bezierCurveTo() {}
  arc() {}
  clip(path) { const p = (path && path.parts) || this.path, r = p.find((s) => s[0] === "rect"); if (r && this.clips.length) this.clips[this.clips.length - 1] = r.slice(1); }
  stroke(path) { this.note("stroke", (path && path.parts) || this.path); }
  fill(path) { this.note("fill", (path && path.parts) || this.path); }
  fillRect(...a) { this.note("fillRect", a); }
  strokeRect(...a) { this.note("strokeRect", a); }
  clearRect() { this.ops = []; }
  fillText(...a) { this.note("text", a); }
  measureText(text) { return { width: 6.2 * text.length }; }
  setLineDash(dash) { this.dash = dash; }
  translate() {} rotate() {} scale() {} setTransform() {} getImageData() { return { data: [] }; }
}
class Path2D {
  constructor(other) { this.parts = other ? [...other.parts] : []; }
  moveTo(...a) { this.parts.push(["M", ...a]); }
  lineTo(...a) { this.parts.push(["L", ...a]); }
  rect(...a) { this.parts.push(["rect", ...a]); }
  arc() {} closePath() {} bezierCurveTo() {}
  addPath(other) { this.parts.push(...other.parts); }
}

class Element {
  constructor(tag) {
    this.tagName = tag.toUpperCase(); this.childNodes = []; this.style = new Proxy({}, { get: (t, k) => t[k] ?? (k === "setProperty" ? () => {} : ""), set: (t, k, v) => { t[k] = v; return true; } });
    this.dataset = {}; this.listeners = {}; this.attributes = {}; this.className = ""; this.own = ""; this.hidden = false; this.value = "";
    this.classList = { add: (...names) => { this.className = [...new Set([...this.className.split(" "), ...names])].join(" ").trim(); }, remove: (n) => { this.className = this.className.split(" ").filter((c) => c !== n).join(" "); }, contains: (n) => this.className.split(" ").includes(n) };
  }
  get children() { return this.childNodes; }
  get firstChild() { return this.childNodes[0] || null; }
  get textContent() { return this.own + this.childNodes.map((c) => c.textContent).join(""); }
  set textContent(text) { this.childNodes = []; this.own = ""; this.append(String(text)); }
  get nodeValue() { return this.own; }
  set nodeValue(text) { this.own = String(text); }
  set innerHTML(text) { this.textContent = text; }
  get options() { return this.childNodes.filter((c) => c.tagName === "OPTION"); }
  get tBodies() { return this.childNodes.filter((c) => c.tagName === "TBODY"); }
  get clientWidth() { return this.closest("columns") ? (width <= 1150 ? inner - 28 : (inner - 18) / 2 - 28) : inner; }
  get clientHeight() { return parseFloat(this.style.height) || 300; }
  get isConnected() { return true; }
  closest(name) { return this.classList.contains(name) ? this : this.parentNode ? this.parentNode.closest(name) : null; }
  append(...nodes) { for (const n of nodes) this.appendChild(typeof n === "string" ? Object.assign(new Element("#text"), { own: n }) : n); }
  appendChild(n) { n.parentNode = this; this.childNodes.push(n); if (this.tagName === "SELECT" && this.value === "") this.value = String(n.value); return n; }
  insertBefore(n, before) { n.parentNode = this; const i = this.childNodes.indexOf(before); this.childNodes.splice(i < 0 ? this.childNodes.length : i, 0, n); return n; }
  replaceChildren(...nodes) { this.childNodes = []; this.own = ""; this.value = ""; this.append(...nodes); }
  removeChild(n) { this.childNodes = this.childNodes.filter((c) => c !== n); }
  remove() { if (this.parentNode) this.parentNode.removeChild(this); }
  setAttribute(k, v) { this.attributes[k] = v; }
  addEventListener(kind, call) { (this.listeners[kind] = this.listeners[kind] || []).push(call); }
  removeEventListener() {}
  dispatchEvent(event) { for (const call of this.listeners[event.type] || []) call(Object.assign({ target: this, preventDefault() {}, stopPropagation() {} }, event)); }
  getBoundingClientRect() { const w = parseFloat(this.style.width) || this.clientWidth, h = parseFloat(this.style.height) || 300; return { left: 0, top: 0, width: w, height: h, right: w, bottom: h }; }
  getContext() { return (this.paint = this.paint || new Paint(this)); }
  querySelector(wanted) { return this.all().find((e) => (wanted[0] === "." ? e.classList.contains(wanted.slice(1)) : e.tagName === wanted.toUpperCase())) || null; }
  all() { return this.childNodes.flatMap((c) => [c, ...c.all()]); }
}

/* The elements of the page, by their tags; what lies in a script or a style is text. */
function parsed(text) {
  const root = new Element("html"), open = [root], VOID = new Set(["meta", "link", "br"]);
  for (const [, closing, tag, words, raw, between] of text.matchAll(/<(\/?)([a-z0-9]+)((?:\s+[^<>]*?)?)>(?:(?<=<(?:script|style)\b[^>]*>)([\s\S]*?)(?=<\/(?:script|style)>))?|([^<]+)/g)) {
    const top = open[open.length - 1];
    if (between !== undefined) { if (between.trim()) top.append(between); continue; }
    if (closing) { while (open.length > 1 && open.pop().tagName !== tag.toUpperCase()); continue; }
    const made = new Element(tag);
    for (const [, k, v] of (words || "").matchAll(/([a-z-]+)(?:="([^"]*)")?/g)) { made.attributes[k] = v ?? ""; if (k === "id") made.id = v; if (k === "class") made.className = v; if (k === "hidden") made.hidden = true; }
    if (raw !== undefined) made.own = raw;
    top.appendChild(made);
    if (!VOID.has(tag)) open.push(made);
  }
  return root;
}
const root = parsed(html.replace(/<!DOCTYPE[^>]*>/i, "")), elements = root.all();
const document = Object.assign(new Element("document"), {
  getElementById: (id) => elements.find((e) => e.id === id) || problems.push(`no element ${id}`) && null,
  createElement: (tag) => new Element(tag), createTextNode: (t) => Object.assign(new Element("#text"), { own: t }), body: elements.find((e) => e.tagName === "BODY"), documentElement: root,
});
const window = Object.assign(new Element("window"), { devicePixelRatio: 1, matchMedia: () => ({ addEventListener() {}, addListener() {} }), innerWidth: width, innerHeight: 900 });
const later = [];
const sandbox = {
  window, document, Path2D, console: { log() {}, error: (...w) => problems.push(w.join(" ")), warn: (...w) => problems.push(w.join(" ")) },
  devicePixelRatio: 1, navigator: { language: "en-US" }, requestAnimationFrame: (f) => later.push(f), queueMicrotask: (f) => later.push(f), setTimeout: (f) => later.push(f), clearTimeout() {}, matchMedia: window.matchMedia,
  Event: class { constructor(type) { this.type = type; } }, CustomEvent: class { constructor(type) { this.type = type; } }, MouseEvent: class { constructor(type, more) { Object.assign(this, more, { type }); } }, HTMLElement: Element,
  addEventListener() {}, removeEventListener() {}, Intl, Math, JSON, Date, Map, Set, Object, Array, Number, String, Infinity, NaN, performance: { now: () => 0 },
};
sandbox.self = sandbox.globalThis = sandbox;
vm.createContext(sandbox);
for (const script of elements.filter((e) => e.tagName === "SCRIPT" && e.attributes.type !== "application/json")) {
  try { vm.runInContext(script.own, sandbox); while (later.length) later.shift()(0); } catch (trouble) { problems.push(String(trouble.stack || trouble)); }
}

const seen = (e) => !e.hidden && (!e.parentNode || seen(e.parentNode));
const rows = (id) => { const e = elements.find((x) => x.id === id); return e ? e.all().filter((x) => x.tagName === "TR").map((tr) => tr.children.map((td) => td.textContent)) : []; };
const texts = (id) => { const e = elements.find((x) => x.id === id); return e && seen(e) ? e.children.map((c) => c.textContent) : []; };
const everything = root.all();
const charts = ["timeline", "boxes", "side0", "side1"].map((id) => {
  const place = everything.find((e) => e.id === id), drawn = place && seen(place) ? place.all() : [], canvas = drawn.find((e) => e.tagName === "CANVAS"), u = drawn.find((e) => e.classList.contains("uplot"));
  const over = drawn.find((e) => e.classList.contains("u-over"));
  return canvas && canvas.paint ? { id, data: u.dataset, width: canvas.width, height: canvas.height, ops: canvas.paint.ops, place: place.clientWidth, over: over && ["left", "top", "width", "height"].map((k) => parseFloat(over.style[k])), legend: drawn.filter((e) => e.classList.contains("u-series")).map((e) => e.textContent) } : null;
}).filter(Boolean);
const columns = everything.filter((e) => e.parentNode && e.parentNode.id === "alive").map((e) => ({ head: e.children[0].textContent, rows: e.all().filter((x) => x.tagName === "TR").map((tr) => tr.children.map((td) => td.textContent)) }));
process.stdout.write(JSON.stringify({ problems, charts, columns, cards: texts("cards"), lines: rows("lines"), needs: rows("needs"), overview: rows("overview"), largest: rows("largest"), changes: rows("changes"), words: texts("words"), others: texts("other"), name: everything.find((e) => e.id === "name").textContent, sections: everything.filter((e) => e.tagName === "SECTION" && seen(e)).map((e) => e.id || e.className) }));

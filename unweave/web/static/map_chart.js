// The points of a map on a canvas: coloured, moved, zoomed, pointed at, and chosen with a box or a lasso.
// Plotly's own for so many points compiles code from strings, which these pages do not allow.

import { colours } from "./charts.js";
import { element } from "./dom.js";

/** Colours of clusters and labels, told apart in both themes. */
export const HUES = ["#4f6bd8", "#e08a3c", "#3a9c7d", "#c05fa6", "#8a79d6", "#b5a02f", "#3f9ec9", "#d1605e", "#7a9a3f", "#a0744f", "#5fb5ae", "#d98fb0"];
const RAMP = ["#5b4fc4", "#3f86c4", "#3fae92", "#c2b23f", "#e8743b"];
/** The ramp as a background, for legends. */
export const GRADIENT = `linear-gradient(90deg, ${RAMP.join(", ")})`;
const STEPS = 48;
const MANY = 20_000;
const REACH = 12;
const EDGE = 28;
const MOST_ZOOM = 400;
const MOST_CORNERS = 80;

/**
 * A chart of points.
 * @param {{onHover: (i: number | null, at: {x: number, y: number} | null) => void, onClick: (i: number) => void, onSelect: (corners: [number, number][]) => void}} options
 *   onSelect gets the corners of what was drawn, in the plane
 */
export function mapChart(options) {
  const canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": "Latents as points of a plane. Arrow keys move it, + and − zoom, 0 shows all; the list beside it has those that were found or chosen." });
  const axes = element("div", { class: "map-axes" });
  const node = element("div", { class: "map-plot" }, canvas, axes);
  const state = { points: null, view: "", zoom: 1, x: 0, y: 0, mode: "pan", marked: null, buckets: [], colour: null, path: null, wide: 0, tall: 0, pointers: new Map() };
  const painter = later(() => paint(canvas, state));

  function draw(points, { values, marked, mode, view }) {
    if (state.view !== view) Object.assign(state, { zoom: 1, x: 0, y: 0 });
    Object.assign(state, { points, marked, mode, view, values, colour: colours() });
    state.buckets = inBuckets(values, state.colour);
    canvas.dataset.mode = mode;
    canvas.dataset.points = points.x.length;
    axes.replaceChildren(...points.axes.map((name, i) => element("span", {}, `${i ? "↑" : "→"} ${name}`)));
    painter();
  }

  new ResizeObserver(([{ contentRect }]) => {
    const ratio = window.devicePixelRatio || 1;
    Object.assign(state, { wide: contentRect.width, tall: contentRect.height });
    Object.assign(canvas, { width: Math.round(ratio * contentRect.width), height: Math.round(ratio * contentRect.height) });
    painter();
  }).observe(node);
  window.addEventListener("unweave-theme", () => state.points && draw(state.points, state));
  listenToPointers(canvas, state, painter, options);
  listenToMoves(canvas, state, painter);
  return { node, draw, placeOf: (i) => onScreen(state, i) };
}

/** At most once for each frame of the screen. */
function later(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/** Points of one colour together: numbers by a ramp, classes by their hue, -1 being none. */
function inBuckets(values, colour) {
  const hues = values.kind === "number" ? ramp() : [colour.line, ...Array.from({ length: values.n }, (_, i) => HUES[i % HUES.length])];
  const place = values.kind === "number"
    ? (value) => Math.max(0, Math.min(STEPS - 1, Math.floor((STEPS * (value - values.low)) / (values.high - values.low || 1))))
    : (value) => value + 1;
  const buckets = hues.map((hue) => ({ hue, ids: [] }));
  values.of.forEach((value, i) => buckets[place(value)].ids.push(i));
  return buckets;
}

function ramp() {
  const stops = RAMP.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  return Array.from({ length: STEPS }, (_, step) => {
    const at = (step / (STEPS - 1)) * (stops.length - 1);
    const i = Math.min(stops.length - 2, Math.floor(at));
    const mixed = stops[i].map((low, part) => Math.round(low + (at - i) * (stops[i + 1][part] - low)));
    return `rgb(${mixed.join(" ")})`;
  });
}

/** Pixels for one unit of the plane, whose points lie between -1 and 1. */
function scale({ wide, tall, zoom }) {
  return zoom * Math.max(1, Math.min(wide, tall) / 2 - EDGE);
}

function onScreen(state, i) {
  const unit = scale(state);
  return { x: state.wide / 2 + unit * (state.points.x[i] - state.x), y: state.tall / 2 - unit * (state.points.y[i] - state.y) };
}

function paint(canvas, state) {
  const { points, buckets, marked, wide, tall, colour } = state;
  const pen = canvas.getContext("2d");
  const ratio = window.devicePixelRatio || 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, tall);
  if (!points || wide === 0) return;
  const n = points.x.length;
  const size = Math.min(9, (n > MANY ? 2.4 : n > 4000 ? 4 : 5.5) * state.zoom ** 0.25);
  pen.globalAlpha = marked ? 0.16 : 0.85;
  for (const { hue, ids } of buckets) dots(pen, state, hue, ids, size, n > MANY);
  if (marked) {
    pen.globalAlpha = 1;
    const chosen = new Set(marked);
    const many = marked.length > MANY / 4;
    if (!many) dots(pen, state, colour.ink, marked, size + 5, false);
    for (const { hue, ids } of buckets) dots(pen, state, hue, ids.filter((i) => chosen.has(i)), size + (many ? 0 : 2.5), many);
  }
  pen.globalAlpha = 1;
  if (state.path) outline(pen, state.path, colour);
}

/** Many points are squares, which cost least; few are copies of one disc. */
function dots(pen, state, hue, ids, size, square) {
  if (ids.length === 0) return;
  const { points, wide, tall } = state;
  const unit = scale(state);
  const [left, top] = [wide / 2 - unit * state.x - size / 2, tall / 2 + unit * state.y - size / 2];
  pen.fillStyle = hue;
  const stamp = square ? null : disc(hue, size);
  for (const i of ids) {
    const x = left + unit * points.x[i];
    const y = top - unit * points.y[i];
    if (x < -size || y < -size || x > wide || y > tall) continue;
    if (square) pen.fillRect(x, y, size, size);
    else pen.drawImage(stamp, x - 1, y - 1, size + 2, size + 2);
  }
}

function disc(hue, size) {
  const ratio = 2 * (window.devicePixelRatio || 1);
  const stamp = document.createElement("canvas");
  stamp.width = stamp.height = Math.ceil(ratio * (size + 2));
  const pen = stamp.getContext("2d");
  pen.fillStyle = hue;
  pen.beginPath();
  pen.arc(stamp.width / 2, stamp.width / 2, (ratio * size) / 2, 0, 2 * Math.PI);
  pen.fill();
  return stamp;
}

function outline(pen, path, colour) {
  pen.beginPath();
  path.forEach(({ x, y }, i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.globalAlpha = 0.1;
  pen.fillStyle = colour.accent;
  pen.fill();
  pen.globalAlpha = 1;
  pen.strokeStyle = colour.accent;
  pen.lineWidth = 1.5;
  pen.stroke();
}

/** The point nearest to a place on the screen, or null. */
function nearestTo(state, at) {
  if (!state.points) return null;
  const unit = scale(state);
  const [x, y] = [state.x + (at.x - state.wide / 2) / unit, state.y - (at.y - state.tall / 2) / unit];
  let [best, least] = [null, (REACH / unit) ** 2];
  const consider = (i) => {
    const apart = (state.points.x[i] - x) ** 2 + (state.points.y[i] - y) ** 2;
    if (apart <= least) [best, least] = [i, apart];
  };
  if (state.marked) state.marked.forEach(consider);
  if (best === null) for (let i = 0; i < state.points.x.length; i += 1) consider(i);
  return best;
}

/** The corners of a path in the plane; of a long one, as many as an address has room for. */
function corners(state, path) {
  const unit = scale(state);
  const every = Math.ceil(path.length / MOST_CORNERS);
  return path.filter((_, i) => i % every === 0).map((at) => [state.x + (at.x - state.wide / 2) / unit, state.y - (at.y - state.tall / 2) / unit]);
}

/** The points within some corners of the plane. */
export function within(points, corners) {
  const inside = (x, y) => {
    let odd = false;
    for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
      const [[ax, ay], [bx, by]] = [corners[i], corners[j]];
      if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
    }
    return odd;
  };
  return [...points.x.keys()].filter((i) => inside(points.x[i], points.y[i]));
}

function listenToPointers(canvas, state, painter, { onHover, onClick, onSelect }) {
  let start = null;
  let travelled = 0;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    state.pointers.set(event.pointerId, at(event));
    start = at(event);
    travelled = 0;
    if (state.mode !== "pan") state.path = [start];
    onHover(null, null);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = at(event);
    const before = state.pointers.get(event.pointerId);
    if (!before) {
      const found = nearestTo(state, now);
      canvas.classList.toggle("on-point", found !== null);
      return onHover(found, now);
    }
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (state.path) state.path = state.mode === "lasso" ? [...state.path, now] : [start, { x: now.x, y: start.y }, now, { x: start.x, y: now.y }];
    else drag(state, event.pointerId, before, now);
    state.pointers.set(event.pointerId, now);
    painter();
  });
  const end = (event) => {
    if (!state.pointers.delete(event.pointerId)) return;
    const path = state.path;
    state.path = null;
    if (event.type === "pointerup" && travelled < 4) {
      const found = nearestTo(state, at(event));
      if (found !== null) onClick(found);
    } else if (event.type === "pointerup" && path) onSelect(corners(state, path));
    painter();
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", end);
  canvas.addEventListener("pointerleave", () => onHover(null, null));
}

/** One finger moves the plane, two also zoom it. */
function drag(state, id, before, now) {
  const others = [...state.pointers].filter(([other]) => other !== id).map(([, place]) => place);
  if (others.length > 0) {
    const apart = (place) => Math.max(1, Math.hypot(place.x - others[0].x, place.y - others[0].y));
    return zoomAt(state, apart(now) / apart(before), others[0]);
  }
  const unit = scale(state);
  state.x -= (now.x - before.x) / unit;
  state.y += (now.y - before.y) / unit;
}

function zoomAt(state, factor, { x, y }) {
  const zoom = Math.max(0.5, Math.min(MOST_ZOOM, state.zoom * factor));
  const [dx, dy] = [x - state.wide / 2, state.tall / 2 - y];
  const before = scale(state);
  state.zoom = zoom;
  const after = scale(state);
  state.x += dx / before - dx / after;
  state.y += dy / before - dy / after;
}

function listenToMoves(canvas, state, painter) {
  const middle = () => ({ x: state.wide / 2, y: state.tall / 2 });
  const all = () => Object.assign(state, { zoom: 1, x: 0, y: 0 });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = canvas.getBoundingClientRect();
    zoomAt(state, Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), { x: event.clientX - box.left, y: event.clientY - box.top });
    painter();
  }, { passive: false });
  canvas.addEventListener("dblclick", () => {
    all();
    painter();
  });
  const by = (dx, dy) => () => Object.assign(state, { x: state.x + (40 * dx) / scale(state), y: state.y + (40 * dy) / scale(state) });
  const moves = { ArrowLeft: by(-1, 0), ArrowRight: by(1, 0), ArrowUp: by(0, 1), ArrowDown: by(0, -1), "+": () => zoomAt(state, 1.4, middle()), "=": () => zoomAt(state, 1.4, middle()), "-": () => zoomAt(state, 1 / 1.4, middle()), 0: all };
  canvas.addEventListener("keydown", (event) => {
    if (!moves[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    moves[event.key]();
    painter();
  });
}

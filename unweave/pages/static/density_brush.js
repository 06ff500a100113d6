// The histogram of densities, on which dragging or clicking chooses a range.

import { button, element } from "./dom.js";
import { histogram } from "./charts.js";
import { counted, percent } from "./numbers.js";

/**
 * @param {{edges: number[], counts: number[], n_dead: number}} densities edges are base 10 logarithms
 * @param {(low: number | null, high: number | null) => void} choose called with a range of densities, or nulls for none
 */
export function densityBrush({ edges, counts, n_dead }, choose) {
  const first = Math.max(0, Math.min(counts.findIndex((n) => n > 0), 16));
  const shown = counts.slice(first);
  const starts = edges.slice(first);
  const share = (i) => 10 ** starts[i];
  const span = starts.at(-1) - starts[0];
  const decades = starts.filter((edge) => Number.isInteger(edge));
  const chart = histogram(shown, {
    height: 96,
    label: `How many latents fire on which share of tokens; ${counted(n_dead, "latent")} never fired`,
    ticks: decades.map((edge) => [(edge - starts[0]) / span, percent(10 ** edge)]),
    tip: (i) => `${counted(shown[i], "latent")} on ${percent(share(i))} to ${percent(share(i + 1))} of tokens`,
    root: true,
  });
  const svg = chart.querySelector("svg");
  const said = element("output", { class: "small" });
  const clear = button("Any density", () => choose(null, null), { class: "quiet" });
  brush(svg, shown.length, (from, to) => paint(svg, from, to), (from, to) => choose(rounded(share(from)), rounded(share(to + 1))));
  const head = element("div", { class: "section-head" }, element("h2", {}, "Density"), said, clear);
  const note = element("p", { class: "note" }, "Share of tokens on which a latent fires, log scale; drag or click to filter. ", `${counted(n_dead, "latent")} never fired.`);

  /** Show the range of the address. */
  function mark(state) {
    const own = state.getAll("range").find((range) => range.startsWith("density:"));
    const [low, high] = own ? own.split(":").slice(1).map((end) => (end === "" ? null : Number(end))) : [null, null];
    const inside = (i) => (low === null || share(i + 1) > low * 1.0001) && (high === null || share(i) < high * 0.9999);
    const bins = shown.map((_, i) => i).filter(inside);
    paint(svg, own ? (bins[0] ?? 1) : 0, own ? (bins.at(-1) ?? 0) : shown.length - 1);
    clear.hidden = !own;
    said.textContent = own ? `${percent(low ?? 0)} to ${percent(high ?? 1)} of tokens` : "";
  }

  return { node: element("section", { class: "card padded brush" }, head, chart, note), mark };
}

function rounded(share) {
  return Number(share.toPrecision(4));
}

function paint(svg, from, to) {
  svg.querySelectorAll(".bar").forEach((bar, i) => bar.classList.toggle("out", i < from || i > to));
}

/** Tell of the bars between where a pointer goes down and where it goes up. */
function brush(svg, n, during, done) {
  let start = null;
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.max(0, Math.min(n - 1, Math.floor((n * (event.clientX - box.left)) / box.width)));
  };
  const ends = (event) => [Math.min(start, at(event)), Math.max(start, at(event))];
  svg.addEventListener("pointerdown", (event) => {
    start = at(event);
    svg.setPointerCapture(event.pointerId);
    during(...ends(event));
  });
  svg.addEventListener("pointermove", (event) => start !== null && during(...ends(event)));
  svg.addEventListener("pointerup", (event) => {
    if (start !== null) done(...ends(event));
    start = null;
  });
  svg.addEventListener("pointercancel", () => (start = null));
}

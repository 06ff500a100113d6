// The charts of a report: training curves, and histograms of latents and of tokens.

import { chart } from "./charts.js";
import { element } from "./dom.js";
import { figure, percent } from "./numbers.js";

const DECADES = [-7, -6, -5, -4, -3, -2, -1, 0];
const MARGIN = { l: 52, r: 12, t: 8, b: 46 };

/** A small chart of what was logged at each step; `rows` were seen by then. */
export function curvePanel({ name, title, kind, values }, rows) {
  const known = values.filter((value) => value !== null);
  const axis = range(kind, known);
  const [start, end] = [known[0], known.at(-1)].map((value) => written(kind, value));
  const trace = { x: rows, y: values, mode: known.length > 1 ? "lines" : "markers", connectgaps: true };
  trace.hovertemplate = `%{y:${kind === "percent" ? ".2~%" : ".4~g"}} at %{x:.3~s} rows<extra></extra>`;
  const xaxis = { tickformat: "~s", nticks: 5, showgrid: false };
  const yaxis = { ...axis, nticks: 5, tickformat: kind === "percent" ? ".1~%" : "~g" };
  const plot = chart(`${title}: ${start} at the first logged step, ${end} at the last`, (colour) => {
    const color = kind === "loss" ? colour.warm : colour.accent;
    return { data: [{ ...trace, line: { color, width: 1.75 }, marker: { color } }], layout: { margin: { l: 50, r: 8, t: 6, b: 24 }, xaxis, yaxis } };
  });
  const heading = element("figcaption", {}, element("span", {}, title + (axis.type === "log" ? ", log scale" : "")), element("strong", {}, end));
  return element("figure", { class: "card chart curve", "data-name": name }, heading, plot);
}

function written(kind, value) {
  if (kind === "percent") return percent(value);
  return kind === "share" ? value.toFixed(3) : figure(value);
}

/** A log axis where a loss falls by far; explained variance from 0 where its start lies far below. */
function range(kind, values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (kind === "loss" && low > 0 && high / low > 30) return { type: "log" };
  if (kind === "share") return { range: [low < -0.2 ? -0.05 : Math.min(0, low), Math.max(1, high) + 0.02] };
  return low < 0 ? {} : { range: [0, 1.06 * high || 0.1] };
}

/** Latents by the share of tokens on which they fire; those that fire on many are hatched. */
export function densityChart({ starts, counts, bin, n_latents, n_dead, n_dense }) {
  const share = (exponent) => percent(10 ** exponent);
  const dense = starts.map((start) => start >= -1 - 1e-9);
  const title = { text: "share of tokens, log scale", standoff: 8 };
  const xaxis = { tickvals: DECADES, ticktext: DECADES.map(share), showgrid: false, title };
  xaxis.range = [Math.min(starts[0] ?? -5, -3) - bin, Math.max((starts.at(-1) ?? -1) + bin, 0) + bin / 2];
  const label = `Histogram of the densities of ${n_latents - n_dead} live latents; ${n_dead} never fired, ${n_dense} are dense`;
  return bars(label, "latents", xaxis, (colour) => ({
    x: starts.map((start) => start + bin / 2),
    y: counts,
    width: bin * 0.9,
    marker: {
      color: dense.map((is) => (is ? colour.warm : colour.accent)),
      pattern: { shape: dense.map((is) => (is ? "/" : "")), size: 5, solidity: 0.4 },
    },
    customdata: starts.map((start) => `${share(start)} to ${share(start + bin)} of tokens`),
    hovertemplate: "%{y:,} latents fire on<br>%{customdata}<extra></extra>",
  }));
}

/** Tokens by the number of latents that are active on them. */
export function sparsityChart({ start, step, counts }) {
  const ends = counts.map((_, i) => [start + i * step, start + (i + 1) * step - 1]);
  const label = `Tokens by active latents, from ${start} to ${start + step * counts.length - 1}`;
  return bars(label, "tokens", { showgrid: false, title: { text: "active latents", standoff: 8 } }, (colour) => ({
    x: ends.map(([low, high]) => (low + high) / 2),
    y: counts,
    width: step * 0.9,
    marker: { color: colour.accent },
    customdata: ends.map(([low, high]) => (low === high ? `${low}` : `${low} to ${high}`)),
    hovertemplate: "%{y:,} tokens with<br>%{customdata} active latents<extra></extra>",
  }));
}

function bars(label, noun, xaxis, make) {
  const yaxis = { title: { text: noun, standoff: 8 }, rangemode: "tozero", nticks: 5 };
  return chart(label, (colour) => ({ data: [{ type: "bar", ...make(colour) }], layout: { margin: MARGIN, xaxis, yaxis, bargap: 0 } }));
}

// Charts of what coders of a sweep say together: laws over widths, and latents through layers.

import { chart, legendAbove, plain } from "./charts.js";
import { count, percent } from "./numbers.js";
import { look } from "./pareto.js";

/** Measured losses as points and the law as a line for each sparsity. */
export function lawChart({ settings, curves }) {
  const names = Object.keys(settings);
  const widths = [...new Set(Object.values(settings).flatMap(({ n }) => n))].sort((a, b) => a - b);
  const xaxis = { type: "log", tickvals: widths, ticktext: widths.map(count), showgrid: false, title: { text: "latents (log scale)", standoff: 8 } };
  const yaxis = { type: "log", tickformat: ".2~g", nticks: 6, title: { text: "unexplained variance (log scale)", standoff: 10 } };
  return chart(`Loss against latents: ${names.join(", ")}`, (colour) => ({
    data: names.flatMap((name, i) => lawTraces(plain(name), settings[name], curves[name], look(i, colour))),
    layout: { margin: { l: 62, r: 12, t: 8, b: 46 }, xaxis, yaxis, showlegend: true, legend: legendAbove(colour) },
  }));
}

function lawTraces(name, { n, loss, l0 }, curve, { color, symbol }) {
  const hovertemplate = `<b>${name}</b><br>%{x:,} latents, L0 %{customdata:.3~g}<br>loss %{y:.4~g}<extra></extra>`;
  return [
    { x: curve.n, y: curve.loss, mode: "lines", line: { color, width: 1.5 }, hoverinfo: "skip", showlegend: false },
    { name, x: n, y: loss, customdata: l0, mode: "markers", marker: { color, symbol, size: 9 }, hovertemplate },
  ];
}

/** The share of latents that is found up to each layer, a line for each chain. */
export function tracksChart(tracks) {
  const label = tracks.map(({ name, followed }) => `${name}: ${followed.map(percent).join(", ")}`).join("; ");
  const yaxis = { tickformat: ".0%", range: [0, 1.04], nticks: 6 };
  return chart(label, (colour) => ({
    data: tracks.map((track, i) => followedTrace(track, look(i, colour))),
    layout: { margin: { l: 46, r: 24, t: 8, b: 30 }, xaxis: { showgrid: false }, yaxis, showlegend: tracks.length > 1, legend: legendAbove(colour) },
  }));
}

function followedTrace({ name, sites, followed }, { color, symbol }) {
  const hovertemplate = `%{x}<br>%{y:.1%} still found<extra>${plain(name)}</extra>`;
  return { name: plain(name), x: sites.map(plain), y: followed, mode: "lines+markers", line: { color, width: 1.75 }, marker: { color, symbol, size: 8 }, hovertemplate };
}

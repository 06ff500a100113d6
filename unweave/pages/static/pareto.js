// Figures of coders against L0, a line for each group of coders that differ in sparsity alone.

import { chart, legendAbove, plain } from "./charts.js";

/** Colours of lines, told apart without red against green; the first two are the theme's own. */
export const HUES = [null, null, "#8b7bd8", "#3d9970", "#b86bab", "#9a8f80"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];

/** Colour and symbol of a line, by its number. */
export function look(i, colour) {
  return { color: HUES[i % HUES.length] ?? [colour.accent, colour.warm][i % HUES.length], symbol: SYMBOLS[i % SYMBOLS.length] };
}

/**
 * The chart of a figure.
 * @param {string} title of the figure
 * @param {{name: string, points: {text: string, x: Mark, y: Mark, about?: any}[]}[]} lines
 *   Mark: {value: number | null, error: number | null}; x is L0, y the figure; `about` comes with a click
 * @param {{legend?: boolean}} options whether the chart names its lines
 */
export function pareto(title, lines, { legend = false } = {}) {
  const label = `${title} against L0: ${lines.map((line) => line.name).join(", ")}`;
  const xaxis = { type: "log", title: { text: "L0, active latents per token (log scale)", standoff: 8 }, showgrid: false, tickvals: ticks(lines), tickformat: "~g" };
  const yaxis = { tickformat: "~g", nticks: 7 };
  const margin = { l: 56, r: 16, t: 8, b: 46 };
  return chart(label, (colour) => ({
    data: lines.map((line, i) => trace(title, line, look(i, colour), colour)),
    layout: { xaxis, yaxis, margin, showlegend: legend, legend: legendAbove(colour) },
  }));
}

function trace(title, line, { color, symbol }, colour) {
  const points = line.points.filter(({ y }) => y.value !== null);
  const bars = (axis) => {
    const array = points.map((point) => point[axis].error ?? 0);
    return { type: "data", array, visible: array.some((error) => error > 0), thickness: 1.25, width: 3, color };
  };
  return {
    name: plain(line.name),
    x: points.map(({ x }) => x.value),
    y: points.map(({ y }) => y.value),
    error_x: bars("x"),
    error_y: bars("y"),
    customdata: points.map(({ about }) => about),
    text: points.map(({ text }) => plain(text)),
    mode: "lines+markers",
    line: { color, width: 1.5 },
    marker: { color, symbol, size: 9, line: { color: colour.surface, width: 1 } },
    hovertemplate: `<b>%{text}</b><br>L0 %{x:.4~g}<br>${plain(title)} %{y:.4~g}<extra></extra>`,
  };
}

/** Where coders are on the axis, each at least a seventh above the one before. */
function ticks(lines) {
  const values = lines.flatMap((line) => line.points.map(({ x }) => x.value)).filter((value) => value > 0);
  values.sort((a, b) => a - b);
  const kept = [];
  for (const value of values) if (kept.length === 0 || value > 1.15 * kept.at(-1)) kept.push(Number(value.toPrecision(2)));
  return kept;
}

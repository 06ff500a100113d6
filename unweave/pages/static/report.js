// The first page of a report: what stands in it already gets its header, its charts and its cards of latents.

import { featuredCards } from "./featured_cards.js";
import { frame } from "./frame.js";
import { count } from "./numbers.js";
import { curvePanel, densityChart, sparsityChart } from "./report_charts.js";

const { curves, densities, featured, texts, tokens_by_l0 } = unweave.get("report");

function curvesNote({ rows, stride }) {
  if (rows.length === 0) return "No training steps were logged.";
  const thinned = stride > 1 ? `; every ${stride}th is drawn.` : ".";
  return `Against the rows seen, ${count(rows.at(-1))} in all, on the batch of each logged step${thinned}`;
}

function fill(id, ...nodes) {
  document.getElementById(id)?.replaceChildren(...nodes);
}

frame();
fill("featured-cards", ...featuredCards(featured, texts));
document.getElementById("featured-section").hidden = featured.length === 0;
fill("density-plot", densityChart(densities));
fill("curves-note", curvesNote(curves));
fill("curves", ...curves.panels.filter(({ values }) => values.some((value) => value !== null)).map((panel) => curvePanel(panel, curves.rows)));
if (tokens_by_l0.counts.length) fill("l0-plot", sparsityChart(tokens_by_l0));
else document.getElementById("l0-figure")?.remove();
document.body.dataset.drawn = "1";

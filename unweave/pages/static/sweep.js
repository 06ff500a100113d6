// The page of a sweep: what stands in it already gets its header and its charts.

import { element } from "./dom.js";
import { frame } from "./frame.js";
import { pareto } from "./pareto.js";
import { lawChart, tracksChart } from "./sweep_chains.js";

const { lines, figures, chains } = unweave.get("sweep");

/** A figure against L0, a line for each architecture at each site. */
function figureChart({ name, title }) {
  const mark = ({ mean, error }, i) => ({ value: mean[i], error: error[i] });
  const points = (line) => line.settings.map((text, i) => ({ text, x: mark(line.l0, i), y: mark(line[name], i) }));
  const drawn = pareto(title, lines.map((line) => ({ name: line.name, points: points(line) })), { legend: lines.length > 1 });
  return element("figure", { class: "card padded pareto", "data-name": name }, element("figcaption", {}, title), drawn);
}

frame();
document.getElementById("charts").append(...figures.map(figureChart));
chains.laws.forEach((law, number) => document.getElementById(`law-${number}`).append(lawChart(law)));
if (chains.tracks.length) document.getElementById("tracks").append(tracksChart(chains.tracks));
document.body.dataset.drawn = "1";

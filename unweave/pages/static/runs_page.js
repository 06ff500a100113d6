// The page of all runs.

import { element, notice } from "./dom.js";
import { count, figure, moment, ratio } from "./numbers.js";
import { open } from "./shell.js";
import { runAddress } from "./state.js";

const INDEX = { ready: "ready", partial: "not finished", none: "none" };

function runRow(run) {
  const about = [run.model, run.reads.join(", ") + (run.writes.length ? ` → ${run.writes.join(", ")}` : "")];
  const name = element("a", { href: runAddress(run.name), class: "run-name" }, run.path);
  const cell = (label, text) => element("td", { "data-label": label }, text);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, name, element("span", { class: "small" }, about.filter(Boolean).join(" · ")), run.problem && element("span", { class: "small problem" }, run.problem)),
    cell("Architecture", element("code", {}, run.architecture || "–")),
    cell("Latents", count(run.n_latents)),
    cell("Explained variance", ratio(run.explained_variance)),
    cell("L0", figure(run.l0)),
    cell("Loss recovered", ratio(run.loss_recovered)),
    cell("Measured", run.date ? moment(run.date) : "–"),
    cell("Index", element("span", { class: `state ${run.index}` }, INDEX[run.index])),
  );
}

/** A table of runs. */
export function runsTable(runs) {
  const titles = ["Run", "Architecture", "Latents", "Explained variance", "L0", "Loss recovered", "Measured", "Index"];
  const head = element("tr", {}, titles.map((title) => element("th", { scope: "col" }, title)));
  return element("div", { class: "scroller card" }, element("table", { class: "runs" }, element("thead", {}, head), element("tbody", {}, runs.map(runRow))));
}

function draw(data, main) {
  const empty = `There is no run below ${data.root}. \`unweave train demo\` makes one.`;
  main.replaceChildren(
    element("div", { class: "wide" }, element("h1", {}, "Runs"), element("p", { class: "note" }, data.root), data.runs.length ? runsTable(data.runs) : notice(empty)),
  );
}

const step = (by) => {
  const links = [...document.querySelectorAll(".run-name")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
};

open({ draw, keys: [["j", "Next run", () => step(1)], ["k", "Previous run", () => step(-1)]] });

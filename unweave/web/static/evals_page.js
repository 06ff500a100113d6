// The page of what was measured of a run.

import { change, query } from "./address.js";
import { histogram } from "./charts.js";
import { element } from "./dom.js";
import { figureGroup, floorsLegend, measuredFacts } from "./measured_view.js";
import { count, counted, percent } from "./numbers.js";
import { open } from "./shell.js";

const MOST_BARS = 64;
let search = null;

function draw({ run, measured }, main, fresh) {
  if (fresh) build(run, measured, main);
  const wanted = query().get("search") ?? "";
  if (document.activeElement !== search) search.value = wanted;
  filter(main, wanted.trim().toLowerCase());
}

function build(run, measured, main) {
  search = element("input", { type: "search", placeholder: "Find a figure", "aria-label": "Find a figure", on: { input: () => change({ search: search.value }, { replace: true }) } });
  const about = [run.architecture, run.reads.join(", "), run.model].filter(Boolean).join(" · ");
  main.append(
    element(
      "div",
      { class: "narrow evals" },
      element("h1", {}, run.path),
      element("p", { class: "note" }, about),
      measuredFacts(measured),
      element("div", { class: "section-head evals-head" }, element("h2", {}, "Figures"), search),
      element("p", { class: "note" }, "With standard errors, by leaving out one block of documents at a time. Each figure has an axis of its own; point at it, or go to it with Tab, for its meaning."),
      floorsLegend(measured.floors),
      measured.groups.map(figureGroup),
      element("section", { class: "distributions" }, sparsityCard(measured), densityCard(measured)),
      measured.suites.length > 0 && element("div", {}, element("h2", { class: "suites" }, "Suites"), measured.suites.map(figureGroup)),
    ),
  );
}

function filter(main, wanted) {
  for (const group of main.querySelectorAll(".measured-group")) {
    let any = false;
    for (const row of group.querySelectorAll("li")) {
      row.hidden = !`${row.dataset.name} ${row.textContent}`.toLowerCase().includes(wanted);
      any ||= !row.hidden;
    }
    group.hidden = !any;
  }
}

function sparsityCard({ tokens_by_l0 }) {
  const first = Math.max(0, tokens_by_l0.findIndex((n) => n > 0));
  const step = Math.max(1, Math.ceil((tokens_by_l0.length - first) / MOST_BARS));
  const starts = Array.from({ length: Math.ceil((tokens_by_l0.length - first) / step) }, (_, i) => first + i * step);
  const counts = starts.map((start) => tokens_by_l0.slice(start, start + step).reduce((sum, n) => sum + n, 0));
  const range = (start) => (step === 1 ? `${start}` : `${start} to ${start + step - 1}`);
  const end = first + counts.length * step;
  const ticks = [[0, count(first)], [0.5, count(Math.round((first + end) / 2))], [1, count(end - 1)]];
  const chart = histogram(counts, { height: 130, label: "Tokens by their active latents", ticks, tip: (i) => `${counted(counts[i], "token")} with ${range(starts[i])} active latents` });
  return card("Active latents", "tokens by the number of latents that are active on them", chart);
}

function densityCard({ latents_by_density: { edges, counts } }) {
  const first = Math.max(0, Math.min(counts.findIndex((n, i) => n > 0 && i > 0), counts.length - 12));
  const n_below = counts.slice(0, first).reduce((sum, n) => sum + n, 0);
  const shown = counts.slice(first);
  const starts = edges.slice(first);
  const span = starts.at(-1) - starts[0];
  const ticks = starts.filter((edge) => Number.isInteger(edge)).map((edge) => [(edge - starts[0]) / span, percent(10 ** edge)]);
  const tip = (i) => `${counted(shown[i], "latent")} on ${percent(10 ** starts[i])} to ${percent(10 ** starts[i + 1])} of tokens`;
  const chart = histogram(shown, { height: 130, label: "Latents by the share of tokens on which they fire", ticks, tip });
  const left = n_below > 0 ? `; ${counted(n_below, "latent")} below are dead or nearly so` : "";
  return card("Density", `latents by the share of tokens on which they fire, log scale${left}`, chart);
}

function card(title, note, content) {
  return element("div", { class: "card padded" }, element("h3", {}, title), element("p", { class: "note" }, note), content);
}

const step = (by) => {
  const rows = [...document.querySelectorAll(".measured li:not([hidden])")].filter((row) => row.offsetParent);
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at < 0 ? 0 : at + by))]?.focus();
};

open({ draw, keys: [["/", "Find a figure", () => search?.select()], ["j", "Next figure", () => step(1)], ["k", "Previous figure", () => step(-1)]] });

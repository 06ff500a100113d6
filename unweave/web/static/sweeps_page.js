// The page of what sparsity costs: coders against L0, and their figures as a table.

import { change, query } from "./address.js";
import { element, notice } from "./dom.js";
import { written } from "./measured_view.js";
import { counted } from "./numbers.js";
import { HUES, pareto } from "./pareto.js";
import { open } from "./shell.js";
import { runAddress } from "./state.js";

function draw(data, main) {
  const { choices, chosen } = data;
  if (!chosen) {
    main.replaceChildren(element("div", { class: "wide" }, element("h1", {}, "What sparsity costs"), notice("There is no sweep here, nor two coders of one site. `unweave sweep demo 'coder.k=[16, 32]'` makes one.")));
    return;
  }
  const drawn = data.figures.filter((one) => one.is_drawn);
  main.replaceChildren(
    element(
      "div",
      { class: "wide sweeps" },
      element("h1", {}, "What sparsity costs"),
      chooser(choices, chosen),
      element("p", { class: "note" }, explained(chosen, data.lines)),
      data.lines.length > 1 && legend(data.lines),
      element("div", { class: "pareto-charts" }, drawn.map((one) => figureChart(one, data.lines))),
      coderTable(data),
    ),
  );
  mark();
}

function chooser(choices, chosen) {
  const group = (kind, label) => {
    const own = choices.filter((choice) => choice.kind === kind);
    const options = own.map((choice) => element("option", { value: `${kind} ${choice.name}`, selected: choice.kind === chosen.kind && choice.name === chosen.name }, `${choice.text} · ${counted(choice.n_coders, "coder")}`));
    return own.length > 0 && element("optgroup", { label }, options);
  };
  const select = element("select", { id: "of", "aria-label": "Coders", on: { change: () => {
    const [kind, ...rest] = select.value.split(" ");
    change({ kind, of: rest.join(" "), line: null });
  } } }, group("sweep", "Sweeps"), group("site", "All coders of a site"));
  return element("div", { class: "group sweep-choice" }, select);
}

function explained(chosen, lines) {
  const seeds = lines.some((line) => line.points.some((point) => point.runs.length > 1));
  const bars = seeds ? "Bars are standard errors over seeds, or of the measurement where a setting has one coder." : "Bars are standard errors of the measurement.";
  const what = chosen.kind === "sweep" ? "Each point is a setting of the sweep, averaged over its seeds." : "Each point is a coder below this folder that reads and writes there, however it was trained.";
  return `${what} ${bars} Further up and to the left is better. Click a point to open its coder.`;
}

function legend(lines) {
  const items = lines.map((line, i) => element("li", {}, element("span", { class: `swatch of-${i % HUES.length}`, style: { "--hue": HUES[i % HUES.length] ?? null } }), line.name));
  return element("ul", { class: "line-legend" }, items);
}

function figureChart({ name, title, meaning }, lines) {
  const missing = { value: null, error: null };
  const points = (line) => line.points.map(({ setting, runs, figures }) => ({ text: setting, x: figures.l0, y: figures[name] ?? missing, about: runs }));
  const box = pareto(title, lines.map((line) => ({ name: line.name, points: points(line) })));
  box.addEventListener("drawn", () => box.on?.("plotly_click", ({ points }) => pick(points[0].customdata)), { once: true });
  return element("figure", { class: "card padded pareto", "data-name": name }, element("figcaption", { title: meaning }, title), box);
}

function pick(runs) {
  if (runs.length === 1) location.assign(runAddress(runs[0], "evals"));
  else change({ run: runs }, { replace: true });
}

function mark() {
  const runs = new Set(query().getAll("run"));
  let first = null;
  for (const row of document.querySelectorAll(".coders tbody tr")) {
    row.classList.toggle("picked", runs.has(row.dataset.run));
    if (runs.has(row.dataset.run)) first ??= row;
  }
  first?.scrollIntoView({ block: "nearest" });
}

function coderTable({ chosen, coders, figures }) {
  const sort = query().get("sort") ?? "";
  const descending = query().get("descending") === "true";
  const value = (coder) => coder.figures[sort]?.value ?? (descending ? -Infinity : Infinity);
  const rows = [...coders];
  if (figures.some((one) => one.name === sort)) rows.sort((a, b) => (descending ? value(b) - value(a) : value(a) - value(b)));
  const head = figures.map((one) => {
    const order = sort === one.name ? (descending ? "descending" : "ascending") : null;
    const arrow = { ascending: " ↑", descending: " ↓" }[order] ?? "";
    const by = () => change({ sort: one.name, descending: order === "ascending" ? "true" : null }, { replace: true });
    return element("th", { scope: "col", title: one.meaning, "aria-sort": order }, element("button", { type: "button", class: "quiet", on: { click: by } }, one.title + arrow));
  });
  const body = rows.map((coder) => {
    const { run, line, setting, why_no_figures } = coder;
    const name = chosen.kind === "sweep" ? run.path.split("/").at(-1) : run.path;
    const about = chosen.kind === "sweep" ? `${line} · ${setting}` : line;
    const title = [element("a", { class: "coder", href: runAddress(run.name, "evals") }, name), element("span", { class: "small" }, about), why_no_figures && element("span", { class: "small problem" }, why_no_figures)];
    return element("tr", { "data-run": run.name }, element("th", { scope: "row" }, title), figures.map((one) => figureCell(one, coder.figures[one.name])));
  });
  const table = element("table", { class: "coders" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Coder"), head)), element("tbody", {}, body));
  return element("section", {}, element("h2", {}, "Coders"), element("p", { class: "note" }, "With the standard errors of each measurement."), element("div", { class: "scroller card" }, table));
}

function figureCell(one, found) {
  if (!found) return element("td", { "data-label": one.title }, "–");
  return element("td", { "data-label": one.title }, written(one.name, found.value), found.error !== null && element("span", { class: "error" }, ` ± ${written(one.name, found.error)}`));
}

const step = (by) => {
  const links = [...document.querySelectorAll(".coders a.coder")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
};

open({ draw, keys: [["/", "Choose coders", () => document.getElementById("of")?.focus()], ["j", "Next coder", () => step(1)], ["k", "Previous coder", () => step(-1)]] });

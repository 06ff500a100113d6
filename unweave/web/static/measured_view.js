// Figures with their floors as rows, whose marks lie on an axis of its own: from the JSON of what was measured to nodes.

import { element } from "./dom.js";
import { count, counted, figure, percent } from "./numbers.js";

/** What each mark stands for. */
export function floorsLegend(floors) {
  const item = (name, text, bold) => element("li", {}, element("span", { class: `dot ${name}` }), bold && element("b", {}, `${name} `), text);
  return element("ul", { class: "floors-legend" }, item("own", "this coder"), Object.entries(floors).map(([name, text]) => item(name, text, true)));
}

/** A heading and a row for each figure. */
export function figureGroup({ title, figures }) {
  return element("section", { class: "measured-group" }, element("h3", { class: "measured-head" }, title), element("ul", { class: "measured card" }, figures.map(measuredRow)));
}

/** A value as people read it; shares as percentages. */
export function written(name, value) {
  if (value === null || value === undefined) return "undefined";
  return name.endsWith("_share") ? percent(value) : figure(value);
}

function measuredRow(one) {
  const basis = one.n_documents === null ? counted(one.n_tokens, "example") : `${counted(one.n_tokens, "token")} of ${counted(one.n_documents, "document")}`;
  const about = [one.meaning, one.good && `Usual: ${one.good}.`, `Measured on ${basis}.`].filter(Boolean).join(" ");
  const floors = Object.entries(one.floors).filter(([, mark]) => mark.value !== null);
  const said = floors.map(([name, mark]) => `${name} ${written(one.name, mark.value)}`).join(", ");
  const error = one.own.error === null ? null : element("span", { class: "error" }, ` ± ${written(one.name, one.own.error)}`);
  const marks = [...floors, ...(one.own.value === null ? [] : [["own", one.own]])].map(([name, mark]) => markNodes(one, name, mark));
  const label = `${one.title}: ${written(one.name, one.own.value)}${said && `; ${said}`}`;
  return element(
    "li",
    { "data-name": one.name, tabindex: "0" },
    element("span", { class: "title" }, one.title, element("span", { class: "about small" }, about)),
    element("span", { class: "value" }, written(one.name, one.own.value), error),
    element("span", { class: "axis", role: "img", "aria-label": label }, marks),
  );
}

function markNodes(one, name, { value, error }) {
  const span = one.high - one.low;
  const at = (100 * (value - one.low)) / span;
  const wide = (200 * (error ?? 0)) / span;
  const title = `${name === "own" ? "this coder" : name}: ${written(one.name, value)}${error === null ? "" : ` ± ${written(one.name, error)}`}`;
  return [
    wide > 0 && element("span", { class: `whisker ${name}`, style: { left: `${(at - wide / 2).toFixed(2)}%`, width: `${wide.toFixed(2)}%` } }),
    element("span", { class: `dot ${name}`, style: { left: `${at.toFixed(2)}%` }, title }),
  ];
}

/** Facts of the measurement as a list of terms. */
export function measuredFacts({ n_tokens, n_documents, floor_tokens, measured_with, seeds }) {
  const plain = (value) => (typeof value === "number" ? count(value) : String(value));
  const facts = [
    ["Measured on", `${counted(n_tokens, "token")} of ${counted(n_documents, "document")}`],
    ...(floor_tokens ? [["Floors measured on", `the first ${count(floor_tokens)} of them`]] : []),
    ...Object.entries(measured_with).filter(([name]) => name !== "tokens" && name !== "floor_tokens").map(([name, value]) => [spaced(name), plain(value)]),
    ["Seeds", Object.entries(seeds).map(([name, seed]) => `${spaced(name).toLowerCase()} ${seed}`).join(", ")],
  ];
  return element("dl", { class: "facts-list" }, facts.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
}

function spaced(name) {
  const text = name.replaceAll("_", " ");
  return text[0].toUpperCase() + text.slice(1);
}

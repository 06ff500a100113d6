// Latents as rows of a table.

import { element, notice } from "./dom.js";
import { count, figure, percent, ratio } from "./numbers.js";
import { chip } from "./tokens.js";

/** Columns of words: title, and a text or tokens of a row; a column is shown where a row has any. */
const WORDS = [
  ["Label", (row, labels) => labels[row.latent] ?? ""],
  ["Peaks on", (row) => row.peaks],
  ["Promotes", (row) => row.promoted],
  ["Rule", (row) => row.rule],
];
const NUMBERS = [
  ["density", "Density", percent],
  ["n_fires", "Fires", count],
  ["max", "Max", figure],
  ["mean", "Mean", figure],
  ["told", "Told", percent],
  ["f1", "F1", (value) => (value ? ratio(value) : "–")],
  ["similar", "Similar", ratio],
  ["jaccard", "Partner", ratio],
];

/**
 * @param {{rows: object[], labels: Object<number, string>, columns: Object<string, string>}} data
 * @param {{sort?: {column: string, descending: boolean}, onSort?: (column: string) => void, address: (latent: number) => string}} options
 */
export function latentsTable({ rows, labels, columns = {} }, { sort = null, onSort = null, address }) {
  if (rows.length === 0) return notice("No latent fits.");
  const head = (name, title) => heading(name, title, columns[name], sort, onSort);
  const words = WORDS.filter(([, read]) => rows.some((row) => read(row, labels).length));
  const titles = [
    head("latent", "Latent"),
    ...words.map(([title]) => element("th", { scope: "col", class: "words" }, title)),
    ...NUMBERS.map(([name, title]) => head(name, title)),
  ];
  const body = rows.map((row) => latentRow(row, words.map(([title, read]) => [title, read(row, labels)]), address(row.latent)));
  const table = element("table", { class: "latents" }, element("thead", {}, element("tr", {}, titles)), element("tbody", {}, body));
  return element("div", { class: "scroller card" }, table);
}

function heading(name, title, meaning, sort, onSort) {
  const sorted = sort?.column === name ? (sort.descending ? "descending" : "ascending") : null;
  const arrow = { ascending: " ↑", descending: " ↓" }[sorted] ?? "";
  const inner = onSort ? element("button", { type: "button", class: "quiet", on: { click: () => onSort(name) } }, title + arrow) : title;
  return element("th", { scope: "col", title: meaning ?? null, "aria-sort": sorted }, inner);
}

function latentRow(row, words, address) {
  const cells = words.map(([title, found]) => {
    const shown = typeof found === "string" ? element("span", { class: "label" }, found) : element("div", { class: "chips" }, found.slice(0, 4).map((text) => chip(text)));
    return element("td", { class: found.length ? "words" : "words empty", "data-label": title }, shown);
  });
  return element(
    "tr",
    { class: row.n_fires === 0 ? "dead" : null },
    element("th", { scope: "row" }, element("a", { class: "latent", href: address }, String(row.latent)), row.n_fires === 0 && element("span", { class: "small" }, " dead")),
    cells,
    NUMBERS.map(([name, title, write]) => element("td", { "data-label": title }, write(row[name]))),
  );
}

// Two coders beside each other, as nodes made of the JSON of the page.

import { drawing, element } from "./dom.js";
import { written } from "./measured_view.js";
import { count, counted, percent, ratio, signed } from "./numbers.js";
import { chip } from "./tokens.js";

const BAR_WIDTH = 640;
/** Figures of both coders, with the interval of each difference where there is one. */
export function comparedFigures(figures, hasIntervals) {
  const titles = ["Figure", "A", "B", hasIntervals && "B − A, with the interval of 95 %"].filter(Boolean);
  const head = element("tr", {}, titles.map((title) => element("th", { scope: "col" }, title)));
  return element("div", { class: "scroller card" }, element("table", { class: "compared" }, element("thead", {}, head), element("tbody", {}, figures.map((one) => comparedRow(one, hasIntervals)))));
}

function comparedRow(one, hasIntervals) {
  const about = [one.meaning, one.good && `Usual: ${one.good}.`].filter(Boolean).join(" ");
  const value = (number, error) => element("td", {}, written(one.name, number), error !== null && element("span", { class: "error" }, ` ± ${written(one.name, error)}`));
  const name = element("th", { scope: "row", title: about }, one.title);
  if (!hasIntervals) return element("tr", {}, name, value(one.a, one.a_error), value(one.b, one.b_error));
  return element("tr", { class: one.is_real ? "real" : null }, name, value(one.a, one.a_error), value(one.b, one.b_error), element("td", { class: "difference" }, interval(one)));
}

/** The difference and its interval around 0; the wider end fills its side. */
function interval({ name, a, b, low, high, is_real }) {
  if (low === null || high === null || a === null || b === null) return element("span", { class: "muted" }, "–");
  const difference = b - a;
  const reach = Math.max(Math.abs(low), Math.abs(high), Math.abs(difference)) || 1;
  const at = (value) => 50 + (46 * value) / reach;
  const said = `${sign(name, difference)}, between ${sign(name, low)} and ${sign(name, high)}${is_real ? "" : "; 0 is possible"}`;
  return element(
    "span",
    { class: "interval", title: said },
    element("span", { class: "number" }, sign(name, difference)),
    element("span", { class: "track", role: "img", "aria-label": said },
      element("span", { class: "whisker", style: { left: `${at(low).toFixed(2)}%`, width: `${(at(high) - at(low)).toFixed(2)}%` } }),
      element("span", { class: "dot", style: { left: `${at(difference).toFixed(2)}%` } })),
    element("span", { class: "small" }, `${sign(name, low)} to ${sign(name, high)}`),
  );
}

function sign(name, value) {
  if (name.endsWith("_share")) return value > 0 ? `+${percent(value)}` : value < 0 ? `−${percent(-value)}` : "0 %";
  return signed(value);
}

/** Best cosines as bars, and what they would be by chance as a line. */
export function cosineHistogram({ counts, by_chance }, under) {
  const height = 150;
  const most = Math.max(1, ...counts, ...by_chance);
  const width = BAR_WIDTH / counts.length;
  const tall = (n) => (n === 0 ? 0 : Math.max(2, (n / most) * height));
  const bars = counts.map((n, i) => {
    const range = `${(i / counts.length).toFixed(2)} to ${((i + 1) / counts.length).toFixed(2)}`;
    const kind = (i + 1) / counts.length <= under + 1e-9 ? "bar out" : "bar";
    return drawing("g", {},
      drawing("rect", { class: kind, x: i * width + 1, width: width - 2, y: height - tall(n), height: tall(n), rx: 1.5 }),
      drawing("rect", { class: "catcher", x: i * width, width, y: 0, height }, drawing("title", {}, `${counted(n, "latent")} with a best cosine of ${range}; by chance ${count(by_chance[i])}`)));
  });
  const steps = by_chance.map((n, i) => `${i ? "L" : "M"}${i * width} ${height - tall(n)}H${(i + 1) * width}`).join("");
  const threshold = drawing("line", { class: "threshold", x1: under * BAR_WIDTH, x2: under * BAR_WIDTH, y1: 0, y2: height });
  const label = `Latents of A by their best cosine with any of B, and the same by chance`;
  const svg = drawing("svg", { class: "bars", viewBox: `0 0 ${BAR_WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, bars, drawing("path", { class: "chance", d: steps }), threshold);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((at) => element("span", { style: { "--at": `${100 * at}%` }, class: at === 0 ? "first" : at === 1 ? "last" : null }, String(at)));
  return element("div", { class: "histogram", style: { "--tall": `${height}px` } }, svg, element("div", { class: "ticks", "aria-hidden": "true" }, ticks));
}

/** Figures of the matching as a whole. */
export function matchingFigures(figures) {
  const fact = (one) => element("div", { title: `${one.meaning} ${one.good ? `Usual: ${one.good}.` : ""}` }, element("dt", {}, one.title), element("dd", {}, one.name.endsWith("_share") ? percent(one.a) : ratio(one.a)));
  return element("dl", { class: "matching" }, figures.map(fact));
}

/**
 * Rows of two latents with their cosine.
 * @param {{rows: object[], view: string}} latents
 * @param {{sort: {column: string, descending: boolean}, onSort: (column: string) => void, address: (side: string, latent: number) => string}} options
 */
export function pairsTable({ rows, view }, { sort, onSort, address }) {
  const ends = { only_a: ["Latent of A", "Nearest in B"], only_b: ["Nearest in A", "Latent of B"] }[view] ?? ["Latent of A", "Latent of B"];
  const head = (column, title) => {
    const sorted = sort.column === column ? (sort.descending ? "descending" : "ascending") : null;
    const arrow = { ascending: " ↑", descending: " ↓" }[sorted] ?? "";
    return element("th", { scope: "col", "aria-sort": sorted }, element("button", { type: "button", class: "quiet", on: { click: () => onSort(column) } }, title + arrow));
  };
  const plain = (title) => element("th", { scope: "col", class: "words" }, title);
  const titles = [head("cosine", "Cosine"), head("latent_a", ends[0]), plain("Peaks on"), head("density_a", "Density"), head("latent_b", ends[1]), plain("Peaks on"), head("density_b", "Density")];
  const body = rows.map(({ a, b, cosine }) => element("tr", {}, element("th", { scope: "row" }, cosineCell(cosine)), side("A", a, address("a", a.latent)), side("B", b, address("b", b.latent))));
  return element("div", { class: "scroller card" }, element("table", { class: "pairs" }, element("thead", {}, element("tr", {}, titles)), element("tbody", {}, body)));
}

function cosineCell(cosine) {
  return element("span", { class: cosine < 0 ? "cosine opposed" : "cosine", title: cosine < 0 ? "they write in opposite directions" : null },
    element("span", { class: "number" }, ratio(cosine)), element("span", { class: "meter" }, element("span", { style: { width: `${(100 * Math.min(1, Math.abs(cosine))).toFixed(1)}%` } })));
}

function side(name, { latent, density, peaks, label }, address) {
  const words = label ? element("span", { class: "label" }, label) : element("span", { class: "chips" }, peaks.slice(0, 3).map((text) => chip(text)));
  return [
    element("td", { "data-label": name }, density === null ? String(latent) : element("a", { class: "latent", href: address }, String(latent))),
    element("td", { class: "words" }, words),
    element("td", { class: "density" }, percent(density)),
  ];
}

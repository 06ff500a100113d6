// The page of the map of a run's latents.

import { change, query } from "./address.js";
import { ask } from "./api.js";
import { button, element, notice } from "./dom.js";
import { mapChart, within } from "./map_chart.js";
import { mapChosen, mapLegend, mapTip } from "./map_side.js";
import { counted, figure, percent } from "./numbers.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

const run = runName();
const AGAIN = 1000;
const COLOURS = [["density", "Density"], ["cluster", "Cluster"], ["max", "Strongest"], ["label", "Label"]];
const TOOLS = [["pan", "Move", "m"], ["select", "Box", "b"], ["lasso", "Lasso", "l"]];
const NUMBERS_OF_CLUSTERS = [4, 6, 8, 12, 16, 24];
const HINT = [
  "Drag to move, scroll to zoom, double-click to see all. Click a point to open its latent.",
  "Box and Lasso choose latents, and so does a class of the legend; what is chosen can be saved as a list.",
].join(" ");
let parts = null;
let facts = null;
let points = null;
let pointsOf = "";
let tool = "pan";
let waiting = null;
let late = null;

function build(main) {
  const search = element("input", { type: "search", placeholder: "Token, label or number", "aria-label": "Search", on: { input: () => {
    clearTimeout(late);
    late = setTimeout(() => change({ search: search.value, area: null, class: null }, { replace: true }), 250);
  } } });
  const plot = mapChart({ onHover: tip, onClick: (latent) => location.assign(runAddress(run, "latents", latent)), onSelect: (corners) => {
    change({ area: corners.map((at) => at.map((value) => value.toFixed(3)).join(",")).join(";"), class: null, search: null });
  } });
  const box = (name, attributes = {}) => element("div", { class: name, ...attributes });
  parts = { search, plot, controls: box("group map-controls"), legend: box("map-legend"), going: box(null), chosen: box(null), tip: box("map-tip", { hidden: true }) };
  Object.assign(parts, { about: element("p", { class: "note" }), found: element("output", { class: "small" }) });
  main.append(
    element("div", { class: "wide map-page" },
      element("div", { class: "section-head" }, element("h1", {}, "Map"), search, parts.found),
      parts.about,
      parts.controls,
      element("div", { class: "map-columns" },
        element("div", { class: "card map-card" }, parts.going, plot.node, parts.tip),
        element("div", { class: "map-side" }, element("section", { class: "card padded" }, parts.legend), parts.chosen))),
  );
}

function draw(data, main, fresh) {
  facts = data;
  if (fresh) build(main);
  const state = query();
  if (document.activeElement !== parts.search) parts.search.value = state.get("search") ?? "";
  parts.found.textContent = data.found === null ? "" : `${counted(data.n_found, "latent")} found`;
  parts.about.textContent = [
    `${counted(data.n_latents, "latent")} by the direction in which each writes.`,
    data.projection === "pca" ? "The two axes along which directions vary most; the others are not seen." : "UMAP keeps near directions near, and says little of distances.",
  ].join(" ");
  parts.controls.replaceChildren(...controls(state));
  load();
}

async function load() {
  clearTimeout(waiting);
  const wanted = `projection=${facts.projection}&clusters=${facts.n_clusters}`;
  if (pointsOf !== wanted) {
    if (points === null) parts.going.replaceChildren(element("p", { class: "notice going", role: "status" }, "Loading the points …"));
    const found = await ask("GET", `${runAddress(run, "map")}/points.json?${wanted}`).catch((error) => ({ problem: error.message }));
    if (wanted !== `projection=${facts.projection}&clusters=${facts.n_clusters}`) return;
    if (found.problem) return parts.going.replaceChildren(notice(found.problem, "problem"));
    if (found.going) {
      parts.going.replaceChildren(element("p", { class: "notice going", role: "status" }, `${found.going} …`));
      waiting = setTimeout(load, AGAIN);
      return;
    }
    points = found;
    pointsOf = wanted;
  }
  parts.going.replaceChildren();
  show();
}

function show() {
  const values = coloured();
  parts.legend.replaceChildren(mapLegend(values, (kind) => change({ class: kind, area: null, search: null })));
  refreshChosen();
}

function refreshChosen() {
  const values = coloured();
  const selected = chosen(values);
  const ids = selected ?? facts.found;
  parts.plot.draw(points, { values, marked: ids, mode: tool, view: pointsOf });
  const word = selected ? "selected" : "found";
  const title = ids && `${counted(ids.length, "latent")} ${word}`;
  const known = { points, labels: facts.labels, lists: Object.keys(facts.lists) };
  const does = { address: (latent) => runAddress(run, "latents", latent), onSave: save, onClear: clear };
  parts.chosen.replaceChildren(ids ? mapChosen({ ids, title, ...known, ...does }) : element("p", { class: "note" }, HINT));
}

/** The latents that the address chooses, by an area of the plane or a class of the colouring, or null. */
function chosen(values) {
  const [area, kind] = [query().get("area"), query().get("class")];
  if (area) return within(points, area.split(";").map((corner) => corner.split(",").map(Number)));
  if (kind === null || values.kind !== "class") return null;
  return values.of.flatMap((value, i) => (String(value) === kind ? [i] : []));
}

function clear() {
  change({ search: null, area: null, class: null });
}

async function save(name, ids) {
  const made = await ask("POST", runAddress(run, "lists"), { name, latents: ids });
  facts.lists[made.name] ??= [];
  return `“${made.name}” has ${counted(made.n_latents, "latent")} now.`;
}

/** What points are coloured by: a number with its range, or a class for each, -1 for none. */
function coloured() {
  const by = query().get("colour") ?? "density";
  if (by === "cluster") return { kind: "class", of: points.cluster, n: points.clusters.length, classes: points.clusters };
  if (by === "label") return byLabel();
  const raw = by === "max" ? points.max : points.density;
  const alive = raw.filter((value) => value > 0);
  if (by === "max") {
    const sorted = [...alive].sort((a, b) => a - b);
    return { kind: "number", of: raw, low: 0, high: sorted[Math.floor(0.99 * (sorted.length - 1))] ?? 1, write: figure, note: "largest activation" };
  }
  const least = Math.log10(alive.reduce((low, value) => Math.min(low, value), 1));
  const most = Math.log10(alive.reduce((high, value) => Math.max(high, value), 0) || 1);
  return { kind: "number", of: raw.map((value) => (value > 0 ? Math.log10(value) : least)), low: least, high: Math.max(most, least + 1e-9), write: (value) => percent(10 ** value), note: "of tokens, log scale" };
}

function byLabel() {
  const counts = new Map();
  for (const text of Object.values(facts.labels)) counts.set(text, (counts.get(text) ?? 0) + 1);
  const classes = [...counts].sort((a, b) => b[1] - a[1]).map(([name, n_latents]) => ({ name, n_latents }));
  const place = new Map(classes.map(({ name }, i) => [name, i]));
  const of = points.x.map((_, latent) => place.get(facts.labels[latent]) ?? -1);
  return { kind: "class", of, n: classes.length, classes, note: "No latent of this run has a label yet; a latent's page gives it one." };
}

function controls(state) {
  const choice = (now, pick) => ([value, text, key]) => button(text, () => pick(value), { "aria-pressed": String(value === now), title: key ? `${text} (${key})` : null });
  const segmented = (label, choices, now, pick) => element("span", { class: "segmented", role: "group", "aria-label": label }, choices.map(choice(now, pick)));
  const projections = [["pca", "PCA"], ["umap", "UMAP"]];
  const colour = state.get("colour") ?? "density";
  const numbers = [...new Set([...NUMBERS_OF_CLUSTERS, facts.n_clusters])].sort((a, b) => a - b);
  const options = numbers.map((n) => element("option", { value: n, selected: n === facts.n_clusters }, `${n} clusters`));
  const select = element("select", { "aria-label": "Number of clusters", on: { change: () => change({ clusters: select.value, class: null }) } }, options);
  const by = segmented("Projection", projections, facts.projection, (value) => change({ projection: value === "pca" ? null : value, area: null }));
  if (facts.umap) by.lastChild.disabled = true;
  return [
    by,
    facts.umap && element("span", { class: "small" }, ...facts.umap.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part))),
    segmented("Colour", COLOURS, colour, (value) => change({ colour: value === "density" ? null : value, class: null })),
    colour === "cluster" && select,
    segmented("Dragging", TOOLS, tool, use),
  ].filter(Boolean);
}

function use(name) {
  tool = name;
  parts.controls.replaceChildren(...controls(query()));
  if (points) refreshChosen();
}

function tip(latent, at) {
  parts.tip.hidden = latent === null;
  if (latent === null) return;
  parts.tip.replaceChildren(...mapTip(latent, points, facts.labels[latent]).filter(Boolean));
  const card = parts.tip.parentElement.getBoundingClientRect();
  const { width, height } = parts.tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.x + 14, card.width - width - 8));
  const above = at.y - height - 14;
  parts.tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(above > 8 ? above : at.y + 18)}px)`;
}

const step = (by) => {
  const links = [...document.querySelectorAll(".map-chosen a.latent")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
};
const next = () => {
  const names = COLOURS.map(([name]) => name);
  const name = names[(names.indexOf(query().get("colour") ?? "density") + 1) % names.length];
  change({ colour: name === "density" ? null : name, class: null });
};

open({
  draw,
  keys: [
    ["/", "Search", () => parts?.search.select()],
    ["c", "Next colouring", next],
    ["m", "Move and zoom", () => use("pan")],
    ["b", "Select with a box", () => use("select")],
    ["l", "Select with a lasso", () => use("lasso")],
    ["x", "Clear search and selection", () => clear()],
    ["j", "Next chosen latent", () => step(1)],
    ["k", "Previous chosen latent", () => step(-1)],
  ],
});

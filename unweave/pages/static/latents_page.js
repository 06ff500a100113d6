// The table of a run's latents, with the histogram of densities that filters it.

import { change, query } from "./address.js";
import { densityBrush } from "./density_brush.js";
import { button, element } from "./dom.js";
import { filters } from "./latent_filters.js";
import { latentsTable } from "./latents_table.js";
import { count, counted } from "./numbers.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

const DESCENDING_FIRST = new Set(["n_fires", "density", "max", "mean", "told", "f1", "similar", "jaccard"]);
let parts = null;
let page = null;

function build(data, main) {
  const { run } = data;
  document.title = `Latents · ${run.path} · unweave`;
  const about = [run.architecture, run.reads.join(", "), run.model].filter(Boolean).join(" · ");
  const tokens = `${counted(data.n_latents, "latent")}, of which ${count(data.n_latents - data.densities.n_dead)} fired on ${counted(data.n_tokens, "token")}`;
  parts = { brush: densityBrush(data.densities, setDensity), filters: filters(data), table: element("div"), pager: element("div", { class: "pager" }) };
  main.append(
    element(
      "div",
      { class: "wide" },
      element("h1", {}, run.path),
      element("p", { class: "note" }, `${about} · ${tokens}`),
      parts.brush.node,
      parts.filters.node,
      parts.table,
      parts.pager,
    ),
  );
}

function draw(data, main, fresh) {
  page = data;
  if (fresh) build(data, main);
  const state = query();
  parts.brush.mark(state);
  parts.filters.mark(data, state);
  const sort = { column: state.get("sort") ?? "latent", descending: state.get("descending") === "true" };
  parts.table.replaceChildren(latentsTable(data, { sort, onSort: sortBy, address: (latent) => runAddress(runName(), "latents", latent) }));
  parts.pager.replaceChildren(...pager(data, state));
}

function sortBy(column) {
  const state = query();
  const same = (state.get("sort") ?? "latent") === column;
  const descending = same ? state.get("descending") !== "true" : DESCENDING_FIRST.has(column);
  change({ sort: column === "latent" ? null : column, descending: descending ? "true" : null, offset: null });
}

/** Ranges of the query but for one column. */
function setDensity(low, high) {
  const others = query().getAll("range").filter((range) => !/^(density|n_fires):/.test(range));
  const own = low === null ? [] : [`density:${low}:${high}`];
  change({ range: [...others, ...own], offset: null });
}

function pager(data, state) {
  const limit = Number(state.get("limit") ?? 100);
  const offset = Number(state.get("offset") ?? 0);
  if (data.found <= limit && offset === 0) return [];
  const last = Math.min(data.found, offset + limit);
  const go = (to) => {
    change({ offset: to || null });
    parts.table.scrollIntoView({ block: "start" });
  };
  return [
    button("← Previous", () => go(Math.max(0, offset - limit)), { disabled: offset === 0 }),
    element("span", { class: "muted" }, offset < data.found ? `${count(offset + 1)} to ${count(last)} of ${count(data.found)}` : `none of ${count(data.found)} here`),
    button("Next →", () => go(offset + limit), { disabled: last >= data.found }),
  ];
}

function step(by) {
  const links = [...parts.table.querySelectorAll("a.latent")];
  const at = links.indexOf(document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
}

function turn(by) {
  const limit = Number(query().get("limit") ?? 100);
  const to = Number(query().get("offset") ?? 0) + by * limit;
  if (to >= 0 && to < page.found) change({ offset: to || null });
}

const keys = [
  ["/", "Search", () => parts.filters.search.select()],
  ["j", "Next row", () => step(1)],
  ["k", "Previous row", () => step(-1)],
  ["n", "Next page", () => turn(1)],
  ["p", "Previous page", () => turn(-1)],
  ["x", "Clear search and filters", () => change({ search: null, range: null, list: null, labelled: null, offset: null })],
];
open({ draw, keys });

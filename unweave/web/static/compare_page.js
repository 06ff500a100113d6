// The page of two coders.

import { change, query } from "./address.js";
import { comparedFigures, cosineHistogram, matchingFigures, pairsTable } from "./compare_view.js";
import { button, element, notice } from "./dom.js";
import { count, counted, percent } from "./numbers.js";
import { open } from "./shell.js";
import { runAddress } from "./state.js";

const AGAIN = 1000;
/** Share of pairs of one number over which a person is told. */
const KEPT = 0.05;
const UNDER = [0.3, 0.5, 0.7, 0.9];
/** Figures that are shown unless all are asked for. */
const FIRST = new Set(["explained_variance", "l0", "ce_increase", "kl", "loss_recovered_mean", "cosine", "dead_share", "dense_share"]);
let parts = null;
let waiting = null;
let limit = 50;

function build(main) {
  parts = { choose: element("div"), figures: element("div"), latents: element("div") };
  main.append(element("div", { class: "wide compare" }, element("h1", {}, "Two coders"), parts.choose, parts.figures, parts.latents));
}

function draw(data, main, fresh) {
  if (fresh) build(main);
  clearTimeout(waiting);
  parts.choose.replaceChildren(chooser(data));
  parts.figures.replaceChildren(...figuresOf(data));
  parts.latents.replaceChildren(...latentsOf(data));
  if (data.going) waiting = setTimeout(() => page.refresh(), AGAIN);
}

function chooser({ runs, a, b }) {
  const field = (side, chosen) => {
    const options = runs.map((run) => element("option", { value: run.name, selected: run.name === chosen?.name }, run.path));
    const select = element("select", { id: `run-${side}`, on: { change: () => choose({ [side]: select.value }) } }, element("option", { value: "" }, "choose a run"), options);
    return element("div", { class: `card padded chosen ${side}` },
      element("div", { class: "section-head" }, element("label", { for: `run-${side}` }, side.toUpperCase()), select),
      chosen && about(chosen));
  };
  const swap = button("⇄", () => choose({ a: b?.name ?? null, b: a?.name ?? null }), { title: "Swap (s)", "aria-label": "Swap the two coders", disabled: !a && !b });
  return element("div", { class: "choosers" }, field("a", a), swap, field("b", b));
}

function about(run) {
  const facts = [run.architecture, counted(run.n_latents, "latent"), run.reads.join(", ") + (run.writes.length ? ` → ${run.writes.join(", ")}` : ""), run.model];
  const links = [["Latents", []], ["Evals", ["evals"]], ["Map", ["map"]]].map(([text, rest]) => element("a", { href: runAddress(run.name, ...rest) }, text));
  return element("div", {}, element("p", { class: "note" }, facts.filter(Boolean).join(" · ")), run.problem && element("p", { class: "small problem" }, run.problem), element("p", { class: "group small" }, links));
}

function choose(changes) {
  change({ ...changes, offset: null });
}

function figuresOf({ a, b, figures, why_no_intervals, going }) {
  if (!a || !b) return [notice("Choose two runs to see their figures and latents beside each other.")];
  const found = figures.some((one) => one.low !== null);
  const title = element("h2", {}, "Figures");
  const said = found
    ? "Blocks of documents are drawn again 2,000 times for both coders at once. A difference is in colour where 0 lies outside the interval that holds 95 % of the draws. Point at a figure for its meaning."
    : "Each with its standard error, which says little of the difference where both were measured on the same text. Point at a figure for its meaning.";
  const why = why_no_intervals && notice(`No intervals of the differences: ${why_no_intervals}.`);
  const all = query().get("all") === "true";
  const first = figures.filter((one) => FIRST.has(one.name));
  const table = figures.length ? comparedFigures(all ? figures : first, found) : null;
  const more = figures.length > first.length && button(all ? "Fewer figures" : `All ${figures.length} figures`, toggleAll, { class: "all-figures" });
  return [element("section", {}, title, why || element("p", { class: "note" }, said), table, more, going && !found && !why && progress(going))].filter(Boolean);
}

function toggleAll() {
  change({ all: query().get("all") === "true" ? null : "true" }, { replace: true });
}

function progress(text) {
  return element("p", { class: "notice going", role: "status" }, `${text} …`);
}

function latentsOf({ a, b, latents, why_no_latents, going }) {
  if (!a || !b) return [];
  const title = element("h2", {}, "Latents");
  if (why_no_latents) return [element("section", {}, title, notice(`Latents cannot be matched: ${why_no_latents}.`))];
  if (!latents) return [element("section", {}, title, progress(going))];
  const same = latents.figures.find((one) => one.name === "same_number_share")?.a ?? 0;
  const elsewhere = a.reads.join() !== b.reads.join() || a.model !== b.model;
  return [
    element("section", {}, title,
      elsewhere && notice("The two coders are of other sites or models: that two latents write alike there says less."),
      same > KEPT && a.name !== b.name && notice(`${percent(same)} of the pairs have one number. Coders of one seed start with the same directions, so latents that training has moved little are alike for that alone.`),
      element("div", { class: "overlap" },
        element("div", { class: "card padded" },
          element("h3", {}, "Best cosines"),
          element("p", { class: "note" }, `Latents of A by the cosine with the nearest latent of B; the line is the same after a random rotation of B. Grey ones are under ${latents.under}.`),
          cosineHistogram(latents.cosines, latents.under)),
        element("div", { class: "card padded" }, element("h3", {}, "As a whole"), matchingFigures(latents.figures)))),
    views(latents),
    latents.rows.length ? pairsTable(latents, { sort: sorting(), onSort: sortBy, address: (side, latent) => runAddress((side === "a" ? a : b).name, "latents", latent) }) : notice("No latent fits."),
    pager(latents),
  ].filter(Boolean);
}

function views({ view, under, n_matched, n_only_a, n_only_b }) {
  const kinds = [["matched", `Matched · ${count(n_matched)}`], ["only_a", `Only in A · ${count(n_only_a)}`], ["only_b", `Only in B · ${count(n_only_b)}`]];
  const tabs = kinds.map(([name, text]) => button(text, () => change({ view: name === "matched" ? null : name, offset: null }), { "aria-pressed": String(name === view) }));
  const levels = UNDER.map((level) => button(String(level), () => change({ under: level === 0.7 ? null : level, offset: null }), { "aria-pressed": String(level === under) }));
  return element("div", { class: "section-head views" },
    element("span", { class: "segmented", role: "group", "aria-label": "Which latents" }, tabs),
    element("span", { class: "group small" }, "only in one where no cosine reaches", element("span", { class: "segmented", role: "group", "aria-label": "Cosine that counts as a counterpart" }, levels)));
}

function sorting() {
  const state = query();
  return { column: state.get("sort") ?? "cosine", descending: state.get("descending") !== "false" };
}

function sortBy(column) {
  const { column: now, descending } = sorting();
  const next = now === column ? !descending : !column.startsWith("latent");
  change({ sort: column === "cosine" ? null : column, descending: next ? null : "false", offset: null });
}

function pager({ found }) {
  const offset = Number(query().get("offset") ?? 0);
  limit = Number(query().get("limit") ?? 50);
  if (found <= limit && offset === 0) return null;
  const last = Math.min(found, offset + limit);
  return element("div", { class: "pager" },
    button("← Previous", () => turn(-1), { disabled: offset === 0 }),
    element("span", { class: "muted" }, offset < found ? `${count(offset + 1)} to ${count(last)} of ${count(found)}` : `none of ${count(found)} here`),
    button("Next →", () => turn(1), { disabled: last >= found }));
}

function turn(by) {
  const to = Number(query().get("offset") ?? 0) + by * limit;
  if (to >= 0) change({ offset: to || null });
}

const step = (by) => {
  const links = [...document.querySelectorAll(".pairs a.latent")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at < 0 ? 0 : at + by))]?.focus();
};

const page = open({
  draw,
  keys: [
    ["/", "Choose the first run", () => document.getElementById("run-a")?.focus()],
    ["a", "All figures, or a few", toggleAll],
    ["s", "Swap the two", () => choose({ a: query().get("b"), b: query().get("a") })],
    ["j", "Next latent", () => step(1)],
    ["k", "Previous latent", () => step(-1)],
    ["n", "Next page", () => !document.querySelector(".pager button:last-child")?.disabled && turn(1)],
    ["p", "Previous page", () => turn(-1)],
  ],
});

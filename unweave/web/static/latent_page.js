// The page of one latent: what is known of it, a live test, and what people write about it.

import { twin } from "./api.js";
import { button, element } from "./dom.js";
import { latentNotes } from "./latent_notes.js";
import { latentTest } from "./latent_test.js";
import { latentExamples, latentFigures, latentHeading, latentHistograms, latentRelations, latentTelling, latentWeights } from "./latent_view.js";
import { figure } from "./numbers.js";
import { open } from "./shell.js";
import { change, query, runAddress, runName, visit } from "./state.js";

const CONTEXTS = ["5", "12", "40", "whole"];
const run = runName();
const address = (latent) => runAddress(run, "latents", latent) + location.search;
const test = latentTest((latent) => `${runAddress(run, "latents", latent)}/test`);
let shown = null;

function draw(data, main) {
  const { latent } = data;
  const isOther = shown?.latent.latent !== latent.latent;
  shown = data;
  document.title = `Latent ${latent.latent} · ${data.run.path} · unweave`;
  const lines = query().get("lines") === "true";
  test.show(data);
  const head = element("div", { class: "latent-head" }, toolbar(data), latentHeading(data), latentFigures(data));
  const examples = element("div", { class: "column" }, test.node, exampleControls(data, lines), latentExamples(data, { lines }));
  const relations = latentRelations(data, address);
  const side = element("div", { class: "side" }, latentNotes(data, runAddress(run)), latentWeights(data), latentHistograms(data), latentTelling(data), relations);
  main.replaceChildren(element("div", { class: "wide latent-page" }, head, side, examples));
  if (isOther && window.scrollY > 0) window.scrollTo(0, 0);
}

function toolbar({ latent: { latent }, n_latents }) {
  return element(
    "div",
    { class: "section-head toolbar" },
    element("a", { href: runAddress(run), class: "back" }, "All latents"),
    element("span", { class: "group" },
      button("← Previous", () => go(latent - 1), { disabled: latent === 0, title: "Previous latent (p)" }),
      button("Random", random, { title: "A latent that fires (r)" }),
      button("Next →", () => go(latent + 1), { disabled: latent + 1 === n_latents, title: "Next latent (n)" })),
    element("span", { class: "group" },
      button("Copy link", (event) => copy(event.currentTarget)),
      element("a", { class: "button", href: `${location.pathname}.json${location.search}`, download: `latent-${latent}.json` }, "JSON")),
  );
}

function exampleControls({ reach, context, latent }, lines) {
  if (latent.n_fires === 0) return null;
  const chosen = CONTEXTS.find((name) => Number(name) === reach) ?? (reach >= context ? "whole" : "12");
  const widths = CONTEXTS.map((name) => button(name === "whole" ? "whole" : `±${name}`, () => change({ context: name === "12" ? null : name }, { replace: true }), { "aria-pressed": String(name === chosen) }));
  const box = element("input", { type: "checkbox", checked: lines, on: { change: () => change({ lines: box.checked ? "true" : null }, { replace: true }) } });
  return element(
    "div",
    { class: "section-head example-controls" },
    element("span", { class: "scale", "aria-hidden": "true" }, "0", element("span", { class: "ramp" }), figure(latent.max_activation)),
    element("label", { class: "check" }, box, "Break lines at ↵"),
    element("span", { class: "segmented", role: "group", "aria-label": "Tokens to each side" }, widths),
  );
}

function go(latent) {
  if (latent >= 0 && latent < shown.n_latents) visit(address(latent));
}

async function random() {
  const table = (offset) => twin(runAddress(run), `?range=n_fires:1:&limit=1&offset=${offset}`);
  const { found } = await table(0);
  if (found === 0) return;
  const { rows } = await table(Math.floor(Math.random() * found));
  go(rows[0].latent);
}

async function copy(node) {
  await navigator.clipboard.writeText(location.href);
  const text = node.textContent;
  node.textContent = "Copied";
  setTimeout(() => (node.textContent = text), 1200);
}

open({
  draw,
  keys: [
    ["n", "Next latent", () => shown && go(shown.latent.latent + 1)],
    ["p", "Previous latent", () => shown && go(shown.latent.latent - 1)],
    ["r", "Random latent", random],
    ["t", "Test on a text", () => test.focus()],
    ["l", "Label", () => document.getElementById("label")?.focus()],
    ["u", "All latents", () => location.assign(runAddress(run))],
  ],
});

// The page of one latent: what is known of it, a live test, and what people write about it.

import { visit } from "./address.js";
import { twin } from "./api.js";
import { button, element } from "./dom.js";
import { breaksLines, exampleControls, latentToolbar } from "./latent_controls.js";
import { latentNotes } from "./latent_notes.js";
import { latentTest } from "./latent_test.js";
import { latentExamples, latentFigures, latentHeading, latentHistograms, latentRelations, latentTelling, latentWeights } from "./latent_view.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

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
  test.show(data);
  const head = element("div", { class: "latent-head" }, toolbar(data), latentHeading(data), latentFigures(data));
  const examples = element("div", { class: "column" }, test.node, exampleControls(data, widths(data)), latentExamples(data, { lines: breaksLines() }));
  const relations = latentRelations(data, address);
  const side = element("div", { class: "side" }, latentNotes(data, runAddress(run)), latentWeights(data), latentHistograms(data), latentTelling(data), relations);
  main.replaceChildren(element("div", { class: "wide latent-page" }, head, side, examples));
  if (isOther && window.scrollY > 0) window.scrollTo(0, 0);
}

function toolbar({ latent: { latent }, n_latents }) {
  const ways = {
    all: runAddress(run),
    previous: latent > 0 ? () => go(latent - 1) : null,
    next: latent + 1 < n_latents ? () => go(latent + 1) : null,
    random,
  };
  const more = element("span", { class: "group" },
    button("Copy link", (event) => copy(event.currentTarget)),
    element("a", { class: "button", href: `${location.pathname}.json${location.search}`, download: `latent-${latent}.json` }, "JSON"));
  return latentToolbar(ways, more);
}

function widths({ reach, context }) {
  const chosen = CONTEXTS.find((name) => Number(name) === reach) ?? (reach >= context ? "whole" : "12");
  return CONTEXTS.map((name) => [name === "whole" ? "whole" : `±${name}`, name === "12" ? null : name, name === chosen]);
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

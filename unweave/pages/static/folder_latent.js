// The page of one latent where there is no server: all that is known of it, and what people wrote.

import { query, visit } from "./address.js";
import { element } from "./dom.js";
import { breaksLines, exampleControls, latentToolbar } from "./latent_controls.js";
import { latentExamples, latentFigures, latentHeading, latentHistograms, latentRelations, latentTelling, latentWeights } from "./latent_view.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

const CONTEXTS = [5, 12, 40];
let shown = null;

function draw(data, main) {
  const { latent } = data;
  const isOther = shown !== null && shown.latent.latent !== latent.latent;
  shown = data;
  document.title = `Latent ${latent.latent} · ${data.run.path} · unweave`;
  const head = element("div", { class: "latent-head" }, toolbar(data), latentHeading(data), latentFigures(data));
  const examples = element("div", { class: "column" }, exampleControls(data, widths(data)), latentExamples(data, { lines: breaksLines() }));
  const relations = latentRelations(data, (other) => (data.neighbours.all.has(other) ? address(other) : null));
  const side = element("div", { class: "side" }, written(data), latentWeights(data), latentHistograms(data), latentTelling(data), relations);
  main.replaceChildren(element("div", { class: "wide latent-page" }, head, side, examples));
  if (isOther && window.scrollY > 0) window.scrollTo(0, 0);
}

function toolbar({ neighbours: { previous, next } }) {
  const to = (latent) => (latent === null ? null : () => go(latent));
  return latentToolbar({ all: runAddress(runName()), previous: to(previous), next: to(next), random });
}

function widths({ reach, longest }) {
  const known = [...new Set([...CONTEXTS.filter((width) => width < longest), longest])];
  return known.map((width) => [`±${width}`, width === 12 ? null : String(width), width === reach]);
}

/** What people wrote of the latent, where they did. */
function written({ written: { label, note }, lists }) {
  const on = Object.keys(lists).filter((name) => lists[name]);
  if (!label && !note && on.length === 0) return null;
  const names = on.map((name) => element("span", { class: "chip" }, name));
  return element("section", { class: "card padded panel notes" }, element("h2", {}, label || "Label and lists"), note && element("p", {}, note), element("div", { class: "chips" }, names));
}

function address(latent) {
  const params = new URLSearchParams(runAddress(runName(), "latents", latent).split("?")[1]);
  for (const name of ["context", "lines"]) if (query().has(name)) params.set(name, query().get(name));
  return `latent.html?${params}`;
}

function go(latent) {
  if (latent !== null && latent !== undefined) visit(address(latent));
}

function random() {
  const { firing } = shown.neighbours;
  go(firing[Math.floor(Math.random() * firing.length)]);
}

open({
  draw,
  keys: [
    ["n", "Next latent", () => go(shown?.neighbours.next)],
    ["p", "Previous latent", () => go(shown?.neighbours.previous)],
    ["r", "Random latent", () => shown && random()],
    ["u", "All latents", () => location.assign(runAddress(runName()))],
  ],
});

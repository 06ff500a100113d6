// The page of one latent where there is no server: all that is known of it, and what people wrote.

import { button, element } from "./dom.js";
import { latentExamples, latentFigures, latentHeading, latentHistograms, latentRelations, latentTelling, latentWeights } from "./latent_view.js";
import { figure } from "./numbers.js";
import { open } from "./shell.js";
import { change, query, runAddress, runName, visit } from "./state.js";

const CONTEXTS = [5, 12, 40];
let shown = null;

function draw(data, main) {
  const { latent } = data;
  const isOther = shown !== null && shown.latent.latent !== latent.latent;
  shown = data;
  document.title = `Latent ${latent.latent} · ${data.run.path} · unweave`;
  const lines = query().get("lines") === "true";
  const head = element("div", { class: "latent-head" }, toolbar(data), latentHeading(data), latentFigures(data));
  const examples = element("div", { class: "column" }, controls(data, lines), latentExamples(data, { lines }));
  const relations = latentRelations(data, (other) => (data.neighbours.all.has(other) ? address(other) : null));
  const side = element("div", { class: "side" }, written(data), latentWeights(data), latentHistograms(data), latentTelling(data), relations);
  main.replaceChildren(element("div", { class: "wide latent-page" }, head, side, examples));
  if (isOther && window.scrollY > 0) window.scrollTo(0, 0);
}

function toolbar({ neighbours: { previous, next } }) {
  return element(
    "div",
    { class: "section-head toolbar" },
    element("a", { href: runAddress(runName()), class: "back" }, "All latents"),
    element("span", { class: "group" },
      button("← Previous", () => go(previous), { disabled: previous === null, title: "Previous latent (p)" }),
      button("Random", random, { title: "A latent that fires (r)" }),
      button("Next →", () => go(next), { disabled: next === null, title: "Next latent (n)" })),
  );
}

function controls({ reach, longest, latent }, lines) {
  if (latent.n_fires === 0) return null;
  const widths = [...new Set([...CONTEXTS.filter((width) => width < longest), longest])];
  const choices = widths.map((width) => button(`±${width}`, () => change({ context: width === 12 ? null : width }, { replace: true }), { "aria-pressed": String(width === reach) }));
  const box = element("input", { type: "checkbox", checked: lines, on: { change: () => change({ lines: box.checked ? "true" : null }, { replace: true }) } });
  return element(
    "div",
    { class: "section-head example-controls" },
    element("span", { class: "scale", "aria-hidden": "true" }, "0", element("span", { class: "ramp" }), figure(latent.max_activation)),
    element("label", { class: "check" }, box, "Break lines at ↵"),
    element("span", { class: "segmented", role: "group", "aria-label": "Tokens to each side" }, choices),
  );
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

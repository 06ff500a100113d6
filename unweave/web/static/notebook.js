// What a notebook shows: one latent, or rows of the table, made of the JSON that stands before this script.

import { element } from "./dom.js";
import { latentExamples, latentFigures, latentHeading, latentHistograms, latentRelations, latentTelling, latentWeights } from "./latent_view.js";
import { latentsTable } from "./latents_table.js";

const NO_ADDRESS = () => null;

function latentNode(data) {
  const head = element("div", { class: "latent-head" }, latentHeading(data), latentFigures(data));
  const side = element("div", { class: "side" }, latentWeights(data), latentHistograms(data), latentTelling(data), latentRelations(data, NO_ADDRESS));
  return element("div", { class: "latent-page" }, head, side, element("div", { class: "column" }, latentExamples(data)));
}

const { kind, data } = globalThis.shown;
document.body.append(kind === "latent" ? latentNode(data) : latentsTable(data, { address: NO_ADDRESS }));
document.body.dataset.drawn = "1";

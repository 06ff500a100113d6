// What stands beside the points of a map: the legend, the note of the latent under the pointer, and the chosen latents.

import { button, element, notice } from "./dom.js";
import { GRADIENT, HUES } from "./map_chart.js";
import { count, counted, figure, percent } from "./numbers.js";
import { chip } from "./tokens.js";

const MOST_SHOWN = 60;

/** The legend of a colouring; `onPick` gets a class. */
export function mapLegend(values, onPick) {
  if (values.kind === "number") {
    const ends = [values.low, values.high].map((end) => element("span", {}, values.write(end)));
    const ramp = element("span", { class: "ramp", style: { background: GRADIENT } });
    return element("div", { class: "ramp-legend" }, ends[0], ramp, ends[1], element("span", { class: "small" }, values.note));
  }
  if (values.classes.length === 0) return element("p", { class: "note" }, values.note);
  const items = values.classes.map(({ name, words, n_latents }, i) => {
    const swatch = element("span", { class: "swatch", style: { background: HUES[i % HUES.length] } });
    const text = words ? element("span", { class: "chips" }, words.map((word) => chip(word))) : element("span", { class: "label" }, name);
    const title = `Choose ${counted(n_latents, "latent")}`;
    return element("li", {}, element("button", { type: "button", class: "quiet class", title, on: { click: () => onPick(i) } }, swatch, text, element("span", { class: "small" }, count(n_latents))));
  });
  return element("ul", { class: "class-legend" }, items);
}

/** What is said of the latent under the pointer. */
export function mapTip(latent, points, label) {
  return [
    element("strong", {}, `Latent ${latent}`),
    label && element("span", { class: "label" }, label),
    element("span", { class: "chips" }, points.peaks[latent].map((text) => chip(text))),
    element("span", { class: "small" }, points.density[latent] === 0 ? "never fires" : `on ${percent(points.density[latent])} of tokens, up to ${figure(points.max[latent])}`),
  ];
}

/**
 * The latents that are searched for or selected, and a form that makes a list of them.
 * @param {{ids: number[], title: string, points: object, labels: object, lists: string[], address: (latent: number) => string, onSave: (name: string, ids: number[]) => Promise<string>, onClear: () => void}} options
 */
export function mapChosen({ ids, title, points, labels, lists, address, onSave, onClear }) {
  const said = element("p", { class: "small", role: "status" });
  const name = element("input", { list: "map-lists", maxlength: 100, placeholder: "Name of a list", "aria-label": "Name of a list", required: true, autocomplete: "off" });
  const save = async (event) => {
    event.preventDefault();
    try {
      said.textContent = await onSave(name.value, ids);
    } catch (error) {
      said.replaceChildren(notice(error.message, "problem"));
    }
  };
  const known = element("datalist", { id: "map-lists" }, lists.map((list) => element("option", { value: list })));
  const form = element("form", { class: "group", on: { submit: save } }, name, known, element("button", { type: "submit", class: "primary" }, "Save as list"));
  const rows = ids.slice(0, MOST_SHOWN).map((latent) => {
    const words = labels[latent] ? element("span", { class: "label" }, labels[latent]) : element("span", { class: "chips" }, points.peaks[latent].map((text) => chip(text)));
    return element("li", {}, element("a", { class: "latent", href: address(latent) }, String(latent)), words, element("span", { class: "small" }, percent(points.density[latent])));
  });
  return element("section", { class: "card padded map-chosen" },
    element("div", { class: "section-head" }, element("h2", {}, title), button("Clear", onClear, { class: "quiet" })),
    ids.length > 0 && form,
    said,
    element("ol", {}, rows),
    ids.length > MOST_SHOWN && element("p", { class: "small" }, `and ${count(ids.length - MOST_SHOWN)} more`));
}

// The latents that are steered, each with what is done to it, and the box that adds one.

import { ask } from "./api.js";
import { button, element } from "./dom.js";
import { latentWords } from "./latent_words.js";
import { figure } from "./numbers.js";
import { runAddress } from "./state.js";

const MODES = [["add", "Add"], ["clamp", "Clamp at"], ["scale", "Scale by"], ["ablate", "Switch off"]];
const UNITS = [["max", "× its max"], ["absolute", "absolute"]];

/** A latent as an address holds it, without what is the default at its end. */
export function steerText({ latent, mode, strength, unit }) {
  if (mode === "ablate") return `${latent}:ablate`;
  const parts = [latent, mode, strength, unit];
  const usual = [null, "add", 1, "max"];
  while (parts.length > 1 && parts.at(-1) === usual[parts.length - 1]) parts.pop();
  return parts.join(":");
}

/** The card of one latent; `set` is called with what shall be other about it, or null to remove it. */
export function steeredLatent(run, one, row, label, set) {
  const choice = (name, pairs, key) => {
    const node = element("select", { "aria-label": name, on: { change: () => set({ [key]: node.value }) } }, pairs.map(([value, text]) => element("option", { value, selected: one[key] === value }, text)));
    return node;
  };
  const head = element("div", { class: "steered-head" }, element("a", { href: runAddress(run, "latents", one.latent) }, `Latent ${one.latent}`), latentWords(row, label), button("×", () => set(null), { class: "quiet", title: "Remove", "aria-label": `Remove latent ${one.latent}` }));
  const inUnits = one.mode === "add" || one.mode === "clamp";
  const controls = element("div", { class: "group" }, choice("What to do", MODES, "mode"), one.mode !== "ablate" && strengthBox(one, set), inUnits && choice("Unit", UNITS, "unit"));
  return element("li", { class: "steered-latent" }, head, controls, one.mode !== "ablate" && slider(one, row, set), element("p", { class: "small" }, meaning(one, row, inUnits)));
}

function strengthBox(one, set) {
  const box = element("input", { type: "number", step: "any", min: -1e6, max: 1e6, value: one.strength, "aria-label": "Strength", class: "strength" });
  box.addEventListener("change", () => {
    if (box.value === "" || !box.validity.valid) return;
    box.defaultValue = box.value; // what differs from it is still being typed
    set({ strength: Number(box.value) });
  });
  return box;
}

function slider(one, row, set) {
  const whole = one.unit === "absolute" && one.mode !== "scale" ? Math.max(1, row.max) : 1;
  const range = element("input", { type: "range", min: -8 * whole, max: 8 * whole, step: whole / 4, value: one.strength, "aria-label": "Strength as a slider" });
  range.addEventListener("input", () => {
    range.closest(".steered-latent").querySelector(".strength").value = Number(range.value).toPrecision(3) / 1;
  });
  range.addEventListener("change", () => set({ strength: Number(Number(range.value).toPrecision(3)) }));
  return range;
}

function meaning({ mode, strength, unit }, row, inUnits) {
  if (inUnits && unit === "max") return `${figure(strength)} × ${figure(row.max)} = ${figure(strength * row.max)}`;
  if (inUnits) return `its largest activation in the index is ${figure(row.max)}`;
  return mode === "scale" ? "wherever it fires; 0 switches it off" : "wherever it fires";
}

/** The box in which a latent is looked for by its number, its tokens or its label; `add` is called with its number. */
export function latentFinder(run, add) {
  const input = element("input", { type: "search", role: "combobox", "aria-expanded": "false", "aria-controls": "found-latents", "aria-label": "Add a latent", placeholder: "Add a latent: number, token or label", autocomplete: "off" });
  const list = element("ul", { id: "found-latents", role: "listbox", "aria-label": "Latents that fit", hidden: true });
  let asked = null;
  const close = () => {
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  };
  const take = (latent) => {
    input.value = "";
    close();
    add(latent);
  };
  async function look() {
    asked?.abort();
    if (!input.value.trim()) return close();
    asked = new AbortController();
    const wanted = new URLSearchParams({ search: input.value.slice(0, 200), limit: 7, sort: "max", descending: "true" });
    try {
      const { rows, labels } = await ask("GET", `${runAddress(run)}.json?${wanted}`, undefined, asked.signal);
      rows.sort((a, b) => (String(b.latent) === input.value.trim()) - (String(a.latent) === input.value.trim()));
      list.replaceChildren(...(rows.length ? rows.map((row) => option(row, labels[row.latent], take)) : [element("li", { class: "small" }, "No latent fits.")]));
      list.hidden = false;
      input.setAttribute("aria-expanded", "true");
    } catch (error) {
      if (error.name !== "AbortError") list.replaceChildren(element("li", { class: "small problem" }, error.message));
    }
  }
  input.addEventListener("input", look);
  input.addEventListener("keydown", (event) => {
    const options = [...list.querySelectorAll("[role=option]")];
    if (event.key === "Enter" && !list.hidden) options[0]?.click();
    if (event.key === "ArrowDown" && !list.hidden) options[0]?.focus();
    if (event.key === "Escape") close();
  });
  return element("div", { class: "finder" }, input, list);
}

function option(row, label, take) {
  const move = (event) => {
    const next = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    if (event.key === "Enter") take(row.latent);
    else if (next) event.currentTarget[next]?.focus();
    else return;
    event.preventDefault();
  };
  return element("li", { role: "option", tabindex: "-1", on: { click: () => take(row.latent), keydown: move } }, element("strong", {}, String(row.latent)), latentWords(row, label));
}

// What people write about a latent: a label, a note, and the lists that it is on.

import { ask } from "./api.js";
import { button, element, notice } from "./dom.js";
import { moment } from "./numbers.js";

/** The card for one latent; `base` is the address of the run. */
export function latentNotes({ latent: { latent }, written, history, lists }, base) {
  const label = element("input", { id: "label", type: "text", maxlength: 200, value: written.label, placeholder: "Label", "aria-label": "Label", autocomplete: "off" });
  const note = element("textarea", { rows: 2, maxlength: 10000, placeholder: "Note", "aria-label": "Note" }, written.note);
  const save = button("Save", () => write(), { class: "primary" });
  const said = element("div", { "aria-live": "polite" });
  const past = element("div", {}, changes(history));
  const refresh = () => (save.hidden = label.value === written.label && note.value === written.note);
  for (const field of [label, note]) field.addEventListener("input", refresh);
  refresh();

  async function write() {
    try {
      const found = await ask("PUT", `${base}/latents/${latent}/label`, { label: label.value, note: note.value });
      written = found.written;
      [label.value, note.value] = [written.label, written.note];
      past.replaceChildren(...changes(found.history));
      said.replaceChildren();
    } catch (error) {
      said.replaceChildren(notice(error.message, "problem"));
    }
    refresh();
  }

  const form = element("form", { on: { submit: (event) => (event.preventDefault(), write()) } }, label, note, element("div", { class: "group" }, save), said);
  return element("section", { class: "card padded panel notes" }, element("h2", {}, "Label and lists"), form, listButtons(lists, latent, base), past);
}

function listButtons(lists, latent, base) {
  const node = element("div", { class: "group lists" });
  const said = element("div", { "aria-live": "polite" });
  const name = element("input", { type: "text", maxlength: 100, placeholder: "New list", "aria-label": "New list", autocomplete: "off" });

  async function put(list, listed) {
    try {
      show((await ask("PUT", `${base}/lists`, { name: list, latent, listed })).lists);
      said.replaceChildren();
    } catch (error) {
      said.replaceChildren(notice(error.message, "problem"));
    }
  }

  function show(found) {
    const known = Object.entries(found).map(([list, on]) => button(list, () => put(list, !on), { class: "list", "aria-pressed": String(on) }));
    node.replaceChildren(...known, form);
  }

  const add = async (event) => {
    event.preventDefault();
    if (!name.value.trim()) return;
    await put(name.value, true);
    name.value = "";
  };
  const form = element("form", { class: "group", on: { submit: add } }, name, element("button", { type: "submit" }, "Add"));
  show(lists);
  return element("div", {}, node, said);
}

function changes(history) {
  if (history.length === 0) return [];
  const items = history.map(({ time, field, old, new: text }) =>
    element("li", {}, element("span", { class: "small" }, `${moment(time)}: ${field}`), element("br"), old && element("del", {}, old), old && " ", element("ins", {}, text || "removed")));
  return [element("details", {}, element("summary", { class: "small" }, `History (${history.length})`), element("ul", { class: "history" }, items))];
}

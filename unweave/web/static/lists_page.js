// The page of a run's lists.

import { ask } from "./api.js";
import { button, element, notice } from "./dom.js";
import { dialog } from "./frame.js";
import { latentsTable } from "./latents_table.js";
import { counted } from "./numbers.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

const run = runName();
const base = runAddress(run);

function listSection({ name, n_latents, rows }, labels) {
  const more = rows.length < n_latents ? notice(`The first ${rows.length} are shown.`) : null;
  return element(
    "section",
    {},
    element("div", { class: "section-head" },
      element("h2", { class: "list-name" }, element("a", { href: `${base}?list=${encodeURIComponent(name)}` }, name)),
      element("span", { class: "muted" }, counted(n_latents, "latent")),
      button("Rename", () => rename(name)),
      button("Delete", () => remove(name))),
    rows.length ? latentsTable({ rows, labels }, { address: (latent) => runAddress(run, "latents", latent) }) : notice("No latent is on this list."),
    more,
  );
}

function draw(data, main) {
  const sections = data.lists.map((list) => listSection(list, data.labels));
  const n = Object.keys(data.labels).length;
  const labelled = element("p", { class: "note" }, element("a", { href: `${base}?labelled=true` }, `${counted(n, "latent")} with a label`));
  const empty = notice("There is no list yet. The page of a latent puts it on one.");
  main.replaceChildren(element("div", { class: "wide" }, element("h1", {}, "Lists"), labelled, sections.length ? sections : element("section", {}, empty)));
}

function rename(name) {
  const input = element("input", { type: "text", value: name, maxlength: 100, "aria-label": "New name" });
  const said = element("div", {});
  const send = async (event) => {
    event.preventDefault();
    await attempt(said, box, () => ask("PATCH", `${base}/lists`, { name, new: input.value }));
  };
  const box = dialog("Rename the list", element("form", { on: { submit: send } }, input, said));
  input.select();
}

function remove(name) {
  const said = element("div", {});
  const go = () => attempt(said, box, () => ask("DELETE", `${base}/lists?name=${encodeURIComponent(name)}`));
  const box = dialog("Delete the list?", element("p", { class: "note" }, `“${name}” goes; its latents keep their labels.`), button("Delete", go, { class: "primary" }), said);
}

async function attempt(said, box, work) {
  try {
    await work();
    box.close();
    page.refresh();
  } catch (error) {
    said.replaceChildren(notice(error.message, "problem"));
  }
}

const page = open({ draw });

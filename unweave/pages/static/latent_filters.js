// Search and filters of the table of latents; each changes the address.

import { change, query } from "./address.js";
import { button, element } from "./dom.js";
import { counted } from "./numbers.js";

const PRESETS = [
  ["All", []],
  ["Firing", ["n_fires:1:"]],
  ["Dead", ["n_fires::0"]],
  ["Over 1 %", ["density:0.01:"]],
  ["Over 10 %", ["density:0.1:"]],
];
const NAMES = {
  n_fires: "Fires", density: "Density", max: "Max", mean: "Mean", told: "Told by token", f1: "F1 of rule", similar: "Similar", jaccard: "Partner",
};
const WAIT = 180;

/** The row of controls; `mark` shows what the address says. */
export function filters(data) {
  let timer = 0;
  const later = (work) => {
    clearTimeout(timer);
    timer = setTimeout(work, WAIT);
  };
  const search = element("input", {
    type: "search", placeholder: "Token, label, or number", "aria-label": "Search by token, label or number", "aria-keyshortcuts": "/", autocomplete: "off", spellcheck: "false",
    on: { input: () => later(() => change({ search: search.value, offset: null }, { replace: true })) },
  });
  const presets = PRESETS.map(([name, ranges]) => button(name, () => setRanges(/^(density|n_fires):/, ranges)));
  const list = element("select", { "aria-label": "List", on: { change: () => change({ list: list.value, offset: null }) } });
  const labelled = element("input", { type: "checkbox", on: { change: () => change({ labelled: labelled.checked ? "true" : null, offset: null }) } });
  const found = element("output", { class: "muted", "aria-live": "polite" });
  const ranges = rangeFields(data.columns, later);
  const more = button("Ranges", () => {
    ranges.node.hidden = !ranges.node.hidden;
    more.setAttribute("aria-expanded", String(!ranges.node.hidden));
  }, { "aria-expanded": "false" });

  function mark({ found: n, n_latents, lists }, state) {
    if (document.activeElement !== search) search.value = state.get("search") ?? "";
    const asked = state.getAll("range");
    const own = asked.filter((range) => /^(density|n_fires):/.test(range)).join();
    presets.forEach((node, i) => node.setAttribute("aria-pressed", String(own === PRESETS[i][1].join())));
    list.replaceChildren(...["", ...lists].map((name) => element("option", { value: name }, name || "All lists")));
    list.value = state.get("list") ?? "";
    list.hidden = lists.length === 0;
    labelled.checked = state.get("labelled") === "true";
    ranges.mark(asked);
    more.classList.toggle("active", asked.length > 0);
    found.textContent = n === n_latents ? counted(n, "latent") : `${counted(n, "latent")} of ${n_latents.toLocaleString("en-US")}`;
  }

  const node = element(
    "div",
    { class: "filters", role: "search" },
    element("div", { class: "group" }, search, element("div", { class: "segmented", role: "group", "aria-label": "Density" }, presets), more, list,
      element("label", { class: "check" }, labelled, "With label"), found),
    ranges.node,
  );
  return { node, mark, search };
}

/** A smallest and a largest value for each column. */
function rangeFields(columns, later) {
  const fields = Object.keys(NAMES).map((name) => {
    const ends = ["smallest", "largest"].map((end) =>
      element("input", { type: "text", inputmode: "decimal", placeholder: end === "smallest" ? "from" : "to", "aria-label": `${NAMES[name]}, ${end}`, on: { input: () => later(() => apply(name)) } }));
    return { name, ends, node: element("fieldset", { title: columns[name] }, element("legend", {}, NAMES[name]), element("div", { class: "ends" }, ends)) };
  });

  function apply(name) {
    const { ends } = fields.find((field) => field.name === name);
    const [low, high] = ends.map((end) => end.value.trim());
    const isNumber = (text) => text === "" || Number.isFinite(Number(text));
    ends.forEach((end) => end.setAttribute("aria-invalid", String(!isNumber(end.value.trim()))));
    if (isNumber(low) && isNumber(high)) setRanges(new RegExp(`^${name}:`), low || high ? [`${name}:${low}:${high}`] : []);
  }

  function mark(asked) {
    for (const { name, ends } of fields) {
      const [low, high] = asked.find((range) => range.startsWith(`${name}:`))?.split(":").slice(1) ?? ["", ""];
      [low, high].forEach((text, i) => document.activeElement !== ends[i] && (ends[i].value = text ?? ""));
    }
  }

  return { node: element("div", { class: "ranges", hidden: true }, fields.map((field) => field.node)), mark };
}

function setRanges(replaced, ranges) {
  const kept = query().getAll("range").filter((range) => !replaced.test(range));
  change({ range: [...kept, ...ranges], offset: null });
}

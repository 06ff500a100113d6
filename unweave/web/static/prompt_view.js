// What a prompt's page shows: its tokens in the colours of latents, one token, and the table of latents.

import { button, drawing, element, notice } from "./dom.js";
import { latentWords } from "./latent_words.js";
import { count, counted, figure, percent } from "./numbers.js";
import { chip, strip } from "./tokens.js";

/** Columns of numbers: name, title, meaning, and how a number is written; those without a meaning cannot sort. */
const FIGURES = [
  ["max", "Max", "Largest activation on this text", figure],
  ["share", "Of its max", "", (value) => `${Math.round(100 * value)} %`],
  ["sum", "Sum", "Sum of its activations on this text", figure],
  ["n_fires", "Tokens", "", count],
  ["density", "Density", "", percent],
  ["surprise", "Surprise", "Share of its largest activation, over its density", figure],
];
/** Some latent is always near its largest activation, so colours grow slowly at first. */
const CONTRAST = 4;
const MOST = "of the largest activation it had in the index";

/** The tokens, window by window; `choose` is called with the place of a token that is clicked. */
export function promptTokens(data, pins, choose) {
  const { stretch, window: length, texts, pinned, rows, selected } = data;
  const only = pins.length === 1 ? pinned[pins[0]] : null;
  const values = only ?? (pins.length ? stretch.places.map(() => 0) : stretch.shares);
  const strongest = only ? Math.max(rows[pins[0]]?.max ?? 0, ...only) : 1;
  const unit = only ? "does not fire" : "no latent fires";
  const strips = grouped(stretch.places, length).map((group) => {
    const of = (all) => group.map((i) => all[i]);
    const node = strip({ token_ids: of(stretch.token_ids), activations: of(values) }, texts, { strongest, unit, label: `Window ${Math.floor(stretch.places[group[0]] / length) + 1}` });
    [...node.children].forEach((span, at) => {
      const i = group[at];
      span.dataset.place = stretch.places[i];
      if (stretch.places[i] === selected?.place) span.setAttribute("aria-current", "true");
      if (pins.length === 0) span.style.setProperty("--heat", `${(100 * stretch.shares[i] ** CONTRAST).toFixed(1)}%`);
      if (pins.length > 1) paintLanes(span, pins, (latent) => pinned[latent][i] / (rows[latent]?.max || 1), (latent) => pinned[latent][i]);
    });
    return node;
  });
  const chosen = (event) => {
    const span = event.target.closest(".token");
    if (span && (event.type === "click" || event.key === "Enter")) choose(Number(span.dataset.place));
  };
  return element("div", { class: "prompt-tokens broken", style: { "--lanes": pins.length > 1 ? pins.length : 0 }, on: { click: chosen, keydown: chosen } }, strips);
}

/** Indices of places that are in the same window. */
function grouped(places, length) {
  const groups = new Map();
  places.forEach((place, i) => {
    const key = Math.floor(place / length);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(i);
  });
  return [...groups.values()];
}

/** Below a token, a line for each pinned latent. */
function paintLanes(span, pins, share, value) {
  const firing = pins.filter((latent) => share(latent) !== 0);
  span.dataset.unit = firing.map((latent) => `${latent}: ${figure(value(latent))}`).join(" · ") || "none of them fires";
  if (firing.length === 0) return;
  span.classList.add("laned");
  const line = (latent, i) => `linear-gradient(${share(latent) ? `color-mix(in srgb, ${pinColour(i)} ${Math.round(35 + 65 * Math.min(1, Math.abs(share(latent))))}%, transparent)` : "transparent"} 0 0)`;
  span.style.setProperty("background-image", pins.map(line).join(", "));
  span.style.setProperty("background-position", pins.map((_, i) => `0 calc(100% - ${5 * (pins.length - 1 - i)}px)`).join(", "));
}

/** The colour of the pinned latent with this number in their order. */
export function pinColour(i) {
  return `var(--pin-${1 + i})`;
}

/** The pinned latents, as a legend. */
export function promptPins({ rows, labels }, pins, { address, unpin }) {
  const items = pins.map((latent, i) =>
    element("li", { style: { "--pin": pins.length > 1 ? pinColour(i) : "var(--heat-high)" } },
      element("span", { class: "swatch", "aria-hidden": "true" }),
      element("a", { href: address(latent) }, `Latent ${latent}`),
      latentWords(rows[latent], labels[latent]),
      button("×", () => unpin(latent), { class: "quiet", title: "Unpin", "aria-label": `Unpin latent ${latent}` })));
  return element("ul", { class: "pins", "aria-label": "Pinned latents" }, items);
}

/** The token that is looked at: what the model expects behind it, and the latents that fire on it. */
export function selectedToken({ selected, texts, rows, labels }, pins, { address, pin }) {
  if (!selected) return element("div", { class: "card padded panel" }, element("p", { class: "note" }, "Click a token to see its latents, and what the model expects behind it."));
  const latents = selected.latents.map(({ latent, activation, share }) =>
    element("li", {},
      pinButton(latent, pins, pin),
      element("a", { href: address(latent) }, String(latent)),
      latentWords(rows[latent], labels[latent]),
      element("span", { class: "meter", title: `${Math.round(100 * share)} % ${MOST}` }, element("span", { style: { width: `${100 * Math.min(1, share)}%` } })),
      element("span", { class: "number" }, figure(activation))));
  const more = selected.n_active > latents.length ? ` The ${latents.length} strongest of ${selected.n_active}.` : "";
  return element(
    "div",
    { class: "card padded panel selected-token" },
    element("h2", {}, "Token ", chip(texts[selected.token_id], "hot"), element("span", { class: "small" }, ` ${count(selected.place)}`)),
    element("h3", {}, "Next"),
    expected(selected, texts),
    element("h3", {}, "Latents"),
    element("p", { class: "small" }, latents.length ? `Bars: share ${MOST}.${more}` : "No latent fires on this token; the coder may not read it."),
    element("ul", { class: "active" }, latents),
  );
}

function expected({ likely, comes, rank }, texts) {
  const line = ([id, probability], own) =>
    element("li", { class: own ? "own" : null },
      chip(texts[id]),
      element("span", { class: "meter" }, element("span", { style: { width: `${100 * probability}%` } })),
      element("span", { class: "number" }, percent(probability)));
  const among = comes && likely.some(([id]) => id === comes[0]);
  const own = comes && !among ? [line(comes, true), element("p", { class: "small" }, `comes next, as number ${count(rank + 1)} of what is expected`)] : [];
  return [element("ul", { class: "likely" }, likely.map((pair) => line(pair, comes && pair[0] === comes[0])), own[0]), own[1]];
}

function pinButton(latent, pins, pin) {
  const on = pins.includes(latent);
  const style = on && pins.length > 1 ? { "--pin": pinColour(pins.indexOf(latent)) } : {};
  return button("", () => pin(latent), { class: "pin", style, "aria-pressed": String(on), title: on ? "Unpin" : "Pin: show it on every token", "aria-label": `Pin latent ${latent}` });
}

/** The latents of the whole text. */
export function promptLatents(data, pins, { sort, onSort, address, pin, choose }) {
  const { latents, found, rows, labels, texts } = data;
  if (latents.length === 0) return notice("No latent fires on this text, or none that the filters leave.");
  const heads = FIGURES.map(([name, title, meaning]) => {
    const sorted = sort === name;
    const inner = meaning ? button(sorted ? `${title} ↓` : title, () => onSort(name), { class: "quiet" }) : title;
    return element("th", { scope: "col", title: meaning || null, "aria-sort": sorted ? "descending" : null }, inner);
  });
  const body = latents.map((one) => {
    const cells = FIGURES.map(([name, title, , write]) => element("td", { "data-label": title, class: name }, write(name === "density" ? rows[one.latent].density : one[name])));
    const colour = pins.includes(one.latent) && pins.length > 1 ? pinColour(pins.indexOf(one.latent)) : "var(--accent)";
    return element("tr", {},
      element("th", { scope: "row" }, element("span", { class: "latent-cell" }, pinButton(one.latent, pins, pin), element("a", { class: "latent", href: address(one.latent) }, String(one.latent)))),
      element("td", { class: "words", "data-label": "Peaks on" }, latentWords(rows[one.latent], labels[one.latent])),
      element("td", { class: "words rule", "data-label": "Rule" }, element("span", { class: "chips" }, rows[one.latent].rule.slice(0, 2).map((text) => chip(text)))),
      element("td", { class: "along", "data-label": "Along the text" }, along(one, colour)),
      element("td", { class: "words peak-cell", "data-label": "Strongest on" }, button(chip(texts[one.peak_id]), () => choose(one.peak), { class: "quiet", title: `Token ${count(one.peak)}` })),
      cells);
  });
  const words = ["Peaks on", "Rule", "Along the text", "Strongest on"].map((title, i) => element("th", { scope: "col", class: i === 1 ? "words rule" : "words" }, title));
  const table = element("table", { class: "standing" }, element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Latent"), words, heads)), element("tbody", {}, body));
  const shown = found > latents.length ? `The first ${latents.length} of ${counted(found, "latent")} that fire on this text.` : `${counted(found, "latent")} fire on this text.`;
  return [element("p", { class: "note" }, shown), element("div", { class: "scroller card" }, table)];
}

/** Activations along the text as bars. */
function along({ latent, lane, n_fires }, colour) {
  const bars = lane.map((value, i) => value > 0 && drawing("rect", { x: i, width: 1, y: 20 * (1 - Math.max(0.12, value)), height: 20 * Math.max(0.12, value) }));
  return drawing("svg", { class: "lane", viewBox: `0 0 ${lane.length} 20`, preserveAspectRatio: "none", role: "img", "aria-label": `Latent ${latent} fires on ${counted(n_fires, "token")}`, style: { "--colour": colour } }, bars);
}

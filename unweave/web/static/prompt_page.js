// The page of a prompt: type a text, see the latents of its tokens.

import { change, query } from "./address.js";
import { ask, twin } from "./api.js";
import { button, element, notice } from "./dom.js";
import { count, counted } from "./numbers.js";
import { promptLatents, promptPins, promptTokens, selectedToken } from "./prompt_view.js";
import { open } from "./shell.js";
import { runAddress, runName } from "./state.js";

/** Characters that an address holds in every browser and server. */
const LONGEST_ADDRESS = 3000;
const MOST_PINNED = 6;
const DENSITIES = [["", "Any density"], ["0.1", "At most 10 %"], ["0.01", "At most 1 %"], ["0.001", "At most 0.1 %"]];
const run = runName();
const address = (latent) => runAddress(run, "latents", latent);
let parts = null;
let shown = null;
let kept = null;

/** The twin, or the same for a text that is kept in this tab; a problem leaves the controls where they are. */
async function load() {
  const state = query();
  if (state.has("text")) kept = null;
  try {
    if (kept === null) return await twin();
    const one = (name) => state.get(name) ?? undefined;
    const body = { text: kept, token: one("token"), start: one("start"), density: one("density"), special: one("special"), sort: one("sort"), pin: state.getAll("pin") };
    return await ask("POST", location.pathname, body);
  } catch (error) {
    if (shown === null) throw error;
    return { ...shown, problem: error.message };
  }
}

function build(main) {
  const text = element("textarea", { rows: 4, "aria-label": "Text", placeholder: "Type or paste a text to see which latents it is made of", spellcheck: "false" });
  text.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && read());
  const density = element("select", { "aria-label": "Density", on: { change: () => change({ density: density.value, start: null }) } }, DENSITIES.map(([value, name]) => element("option", { value }, name)));
  const special = element("input", { type: "checkbox", on: { change: () => change({ special: special.checked ? null : "true" }) } });
  const send = button("Read", read, { class: "primary", title: "Ctrl Enter" });
  parts = { text, density, special, send, note: element("p", { class: "note prompt-note", "aria-live": "polite" }), body: element("div") };
  const controls = element("div", { class: "section-head prompt-controls" }, parts.note, density, element("label", { class: "check" }, special, "Hide special tokens"), send);
  main.append(element("div", { class: "wide" }, element("h1", {}, "Prompt"), element("div", { class: "card padded prompt-box" }, text, controls), parts.body));
}

function draw(data, main, fresh) {
  if (fresh) build(main);
  const state = query();
  const text = kept ?? state.get("text") ?? "";
  if (fresh || (shown !== null && text !== shown.text)) parts.text.value = text;
  parts.density.value = DENSITIES.some(([value]) => value === state.get("density")) ? state.get("density") : "";
  parts.special.checked = state.get("special") !== "true";
  parts.send.disabled = false;
  parts.note.textContent = data.problem ? "" : said(data);
  shown = { ...data, problem: undefined, text };
  const pins = state.getAll("pin").map(Number);
  const nodes = data.n_tokens ? prompted(data, pins, state) : [];
  const top = window.scrollY;
  parts.body.replaceChildren(...(data.problem ? [notice(data.problem, "problem")] : []), ...nodes);
  window.scrollTo(0, top);
}

function said({ n_tokens, n_windows, window: length, run: { model } }) {
  if (!n_tokens) return `Read by ${model}.`;
  const cut = n_windows > 1 ? `, read in ${n_windows} windows of ${length} tokens, each without those before it` : "";
  return `${counted(n_tokens, "token")}${cut}.${kept === null ? "" : " The text is too long for an address, so it is kept in this tab only."}`;
}

function prompted(data, pins, state) {
  const acts = { address, unpin: pin, pin, choose, sort: state.get("sort") ?? "max", onSort: (name) => change({ sort: name === "max" ? null : name }, { replace: true }) };
  const hint = pins.length ? promptPins(data, pins, acts) : element("p", { class: "note" }, "The darker a token, the closer its strongest latent comes to its largest activation. Pin latents to see them on every token.");
  const steer = pins.length > 0 && element("a", { class: "button", href: steering(pins, state) }, "Steer with these");
  const tokens = element("div", { class: "card padded panel" }, element("div", { class: "section-head" }, hint, steer), promptTokens(data, pins, choose), pages(data));
  return [
    element("div", { class: "prompt-grid" }, element("div", { class: "prompt-main" }, tokens), element("aside", { class: "prompt-side", "aria-label": "Selected token" }, selectedToken(data, pins, acts))),
    element("section", {}, element("h2", {}, "Latents of the whole text"), promptLatents(data, pins, acts)),
  ];
}

function pages({ stretch, n_tokens, page }) {
  if (n_tokens <= page) return null;
  const last = Math.min(n_tokens, stretch.start + page);
  const go = (start) => change({ start: start || null });
  return element("div", { class: "pager" },
    button("← Previous", () => go(stretch.start - page), { disabled: stretch.start === 0 }),
    element("span", { class: "muted" }, `Tokens ${count(stretch.start)} to ${count(last - 1)} of ${count(n_tokens)}`),
    button("Next →", () => go(last), { disabled: last >= n_tokens }));
}

function steering(pins, state) {
  const asked = new URLSearchParams(kept === null ? { prompt: state.get("text") ?? "" } : {});
  pins.forEach((latent) => asked.append("steer", latent));
  return `${runAddress(run, "steer")}?${asked}`;
}

function read() {
  const text = parts.text.value;
  const isLong = encodeURIComponent(text.toWellFormed?.() ?? text).length > LONGEST_ADDRESS;
  parts.note.textContent = "The model reads the text; the first time it is loaded, which takes a while.";
  const same = text === shown?.text;
  kept = isLong ? text : null;
  parts.send.disabled = !same;
  change({ text: isLong ? null : text, token: same ? query().get("token") : null, start: null });
  if (isLong || same) page.refresh();
}

function choose(place) {
  const { stretch, page: length } = shown;
  const start = Math.floor(place / length) * length;
  change({ token: place, start: start === stretch.start ? query().get("start") : start || null });
}

function pin(latent) {
  const pins = query().getAll("pin").map(Number);
  change({ pin: pins.includes(latent) ? pins.filter((one) => one !== latent) : [...pins, latent].slice(-MOST_PINNED) });
}

/** Select the token before or behind the one that is selected. */
function step(by) {
  const { places } = shown?.stretch ?? { places: [] };
  const at = places.indexOf(shown?.selected?.place ?? -1);
  const next = places[at < 0 ? 0 : Math.max(0, Math.min(places.length - 1, at + by))];
  if (next !== undefined) change({ token: next }, { replace: true });
}

const page = open({
  draw,
  load,
  keys: [
    ["/", "Text", () => parts?.text.focus()],
    ["n", "Next token", () => step(1)],
    ["p", "Previous token", () => step(-1)],
    ["x", "Unpin all latents", () => change({ pin: null })],
  ],
});

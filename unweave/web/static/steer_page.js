// The page of steering: a prompt, latents to change, and two texts that are written side by side.

import { change, query } from "./address.js";
import { button, element, notice } from "./dom.js";
import { open } from "./shell.js";
import { runName } from "./state.js";
import { latentFinder, steeredLatent, steerText } from "./steer_latents.js";
import { nextChange, outcomeNote, writtenText } from "./steer_view.js";
import { heardLines } from "./stream.js";

const LONGEST_ADDRESS = 3000;
const MOST = 8;
const POSITIONS = [["all", "Everywhere"], ["prompt", "In the prompt only"], ["generated", "In what is written only"], ["from", "From a token on"]];
const NUMBERS = [
  ["temperature", "Temperature", { min: 0, max: 5, step: 0.1 }, 0],
  ["n_tokens", "Tokens", { min: 1, max: 400, step: 1 }, 40],
  ["seed", "Seed", { min: 0, max: 2 ** 31 - 1, step: 1 }, 0],
];
const run = runName();
let parts = null;
let shown = null;
let writing = null;

function build(data, main) {
  const prompt = element("textarea", { rows: 4, "aria-label": "Prompt", placeholder: "The text that goes on", spellcheck: "false", maxlength: 20000 });
  prompt.addEventListener("change", keepPrompt);
  prompt.addEventListener("keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && write());
  const positions = element("select", { "aria-label": "Positions", on: { change: () => change({ positions: positions.value === "all" ? null : positions.value }) } }, POSITIONS.map(([value, text]) => element("option", { value }, text)));
  const first = number("first", "First token", { min: 0, max: 2 ** 31 - 1, step: 1 }, 0);
  const numbers = NUMBERS.map(([name, title, bounds, usual]) => [name, number(name, title, bounds, usual)]);
  const start = button("Write", write, { class: "primary", title: "Ctrl Enter" });
  const stop = button("Stop", () => writing?.abort(), { disabled: true, title: "Stop (s)" });
  const finder = latentFinder(run, add);
  const outcome = element("div", { class: "outcome", "aria-live": "off" });
  parts = { prompt, positions, first, numbers, start, stop, finder, outcome, latents: element("ul", { class: "steered-latents" }) };
  const where = element("label", { class: "field" }, element("span", {}, "Where"), positions, first);
  const fields = numbers.map(([, node], i) => element("label", { class: "field" }, element("span", {}, NUMBERS[i][1]), node));
  const panel = element("div", { class: "card padded steer-panel" }, element("h2", {}, "Prompt"), prompt, element("h2", {}, "Latents"), parts.latents, finder, element("div", { class: "fields" }, where, fields), element("div", { class: "group actions" }, start, stop));
  main.append(element("div", { class: "wide" }, element("h1", {}, "Steer"), data.problem ? notice(data.problem, "problem") : element("p", { class: "note" }, about(data)), element("div", { class: "steer-grid" }, panel, outcome)));
  outcome.append(element("p", { class: "note placeholder" }, "Choose latents, then let the model write: as it is, and with them changed. What the coder does not explain stays as it is."));
}

function about({ run: { model, reads } }) {
  return `${model} goes on with a text, once as it is and once with latents changed at ${reads.join(", ")}. One seed draws both texts.`;
}

function number(name, title, bounds, usual) {
  const node = element("input", { type: "number", "aria-label": title, ...bounds });
  node.addEventListener("change", () => node.value !== "" && node.validity.valid && change({ [name]: Number(node.value) === usual ? null : node.value }));
  return node;
}

function draw(data, main, fresh) {
  if (fresh) build(data, main);
  const { settings, latents, rows, labels } = data;
  if (fresh || (query().has("prompt") && document.activeElement !== parts.prompt)) parts.prompt.value = settings.prompt;
  parts.positions.value = settings.positions;
  parts.first.value = settings.first;
  parts.first.hidden = settings.positions !== "from";
  for (const [name, node] of parts.numbers) if (node !== document.activeElement) node.value = settings[name];
  shown = data;
  ready();
  parts.finder.hidden = latents.length >= MOST;
  if (isTyped(document.activeElement)) return;
  const focused = parts.latents.contains(document.activeElement) ? [document.activeElement.closest("li").dataset.latent, document.activeElement.getAttribute("aria-label")] : null;
  parts.latents.replaceChildren(...latents.map((one, i) => {
    const node = steeredLatent(run, one, rows[one.latent], labels[one.latent], (changes) => {
      setLatents(shown.latents.flatMap((old, j) => (i !== j ? [old] : changes ? [{ ...old, ...changes }] : [])));
    });
    node.dataset.latent = one.latent;
    return node;
  }));
  if (focused) parts.latents.querySelector(`[data-latent="${focused[0]}"] [aria-label="${focused[1]}"]`)?.focus();
}

/** Whether somebody is typing a strength, which drawing the latents anew would lose. */
function isTyped(node) {
  return parts.latents.contains(node) && node.type === "number" && node.value !== node.defaultValue;
}

function ready() {
  parts.start.disabled = writing !== null || shown.problem !== "" || shown.latents.length === 0;
  parts.stop.disabled = writing === null;
}

function add(latent) {
  if (shown.latents.some((one) => one.latent === latent)) return;
  setLatents([...shown.latents, { latent, mode: "add", strength: 1, unit: "max" }]);
}

function setLatents(latents) {
  shown = { ...shown, latents };
  change({ steer: latents.map(steerText) });
}

/** A prompt that is too long for an address is kept in this tab only. */
function keepPrompt() {
  const text = parts.prompt.value;
  const isLong = new URLSearchParams({ text }).toString().length > LONGEST_ADDRESS;
  change({ prompt: isLong ? null : text }, { replace: true });
}

async function write() {
  if (parts.start.disabled) return;
  keepPrompt();
  const own = new AbortController();
  writing = own;
  ready();
  const prompt = parts.prompt.value;
  const texts = { baseline: writtenText("baseline", prompt), steered: writtenText("steered", prompt) };
  const next = element("section", { class: "card padded next-change", hidden: true });
  const status = element("div", { class: "status", "aria-live": "polite" }, element("p", { class: "note" }, "The model writes; the first time it is loaded, which takes a while."));
  delete parts.outcome.dataset.done;
  parts.outcome.replaceChildren(element("div", { class: "texts" }, texts.baseline.node, texts.steered.node), status, next);
  if (parts.outcome.getBoundingClientRect().top > window.innerHeight - 120) parts.outcome.scrollIntoView({ block: "center" });
  const hear = (event) => {
    if (event.kind === "token") {
      status.replaceChildren();
      texts[event.side].add(event);
    }
    if (event.kind === "problem") throw new Error(event.error);
    if (event.kind === "next") {
      next.hidden = false;
      next.replaceChildren(...nextChange(event));
    }
    if (event.kind === "end") {
      texts.baseline.finish(event);
      texts.steered.finish(event);
      status.replaceChildren(outcomeNote(event));
    }
  };
  const { positions, first, temperature, n_tokens, seed } = shown.settings;
  const asked = { prompt, latents: shown.latents, positions, first, temperature, n_tokens, seed };
  try {
    await heardLines(location.pathname, asked, own.signal, hear);
  } catch (error) {
    status.replaceChildren(error.name === "AbortError" ? element("p", { class: "note" }, "Stopped.") : notice(error.message, "problem"));
  } finally {
    writing = null;
    parts.outcome.dataset.done = "";
    ready();
  }
}

open({
  draw,
  keys: [
    ["/", "Prompt", () => parts?.prompt.focus()],
    ["a", "Add a latent", () => parts?.finder.querySelector("input").focus()],
    ["w", "Write", write],
    ["s", "Stop", () => writing?.abort()],
  ],
});

// What the page of steering shows of texts while they are written, and of what comes next.

import { element } from "./dom.js";
import { figure, percent } from "./numbers.js";
import { chip, strip, writeToken } from "./tokens.js";

const NAMES = { baseline: "Baseline", steered: "Steered" };
const ENDS = { tokens: "all tokens written", "end of text": "the model ended the text", context: "the model's context is full" };
/** KL in nats that has the full colour. */
const FULL = 2;

/** One of two texts: its node, and what to do with the events of its side. */
export function writtenText(side, prompt) {
  const body = strip({ token_ids: [], activations: [] }, {}, { strongest: 1, label: `${NAMES[side]} text` });
  const end = element("p", { class: "small" });
  const owners = [];
  let waiting = [];
  body.classList.add("written");
  body.append(element("span", { class: "asked" }, prompt));
  const node = element("div", { class: `card padded text side-${side} broken` }, element("div", { class: "section-head" }, element("h2", {}, NAMES[side]), end), body);

  function piece(text) {
    const span = element("span", { class: "token", tabindex: owners.length ? "-1" : "0" });
    const ids = waiting.map(({ token_id }) => token_id).join(", ");
    const likely = waiting.reduce((product, { probability }) => product * probability, 1);
    Object.assign(span.dataset, { id: ids, value: 0, unit: `${percent(likely)} likely`, text });
    waiting.forEach(() => owners.push(span));
    waiting = [];
    body.append(writeToken(span, text));
  }

  return {
    node,
    add(event) {
      waiting.push(event);
      if (event.text) piece(event.text);
      end.textContent = `${owners.length} tokens`;
    },
    finish({ because, rest, kl }) {
      if (waiting.length) piece(rest[side]);
      end.textContent = `${owners.length} tokens; ${ENDS[because[side]]}`;
      if (side === "steered") colour(owners, kl);
    },
  };
}

/** Colour the tokens at which the steered model expects something else than the model as it is. */
function colour(owners, kl) {
  const sums = new Map();
  owners.forEach((span, i) => sums.set(span, (sums.get(span) ?? 0) + (kl[i] ?? 0)));
  for (const [span, sum] of sums) {
    span.dataset.unit = `${span.dataset.unit} · KL ${figure(sum)}`;
    if (sum < 0.01) continue;
    span.classList.add("fires");
    span.style.setProperty("--heat", `${(100 * Math.min(1, sum / FULL)).toFixed(1)}%`);
  }
}

/** The probabilities of the token right behind the prompt, before and after. */
export function nextChange({ likely, kl }) {
  const most = Math.max(...likely.flatMap(([, , before, after]) => [before, after]));
  const bar = (kind, value) => [element("span", { class: `meter ${kind}` }, element("span", { style: { width: `${(100 * value) / most}%` } })), element("span", { class: "number" }, percent(value))];
  const lines = likely.map(([, text, before, after]) => element("li", {}, chip(text), element("div", { class: "pair" }, bar("before", before), bar("after", after))));
  const key = element("p", { class: "small key-line" }, element("span", { class: "dot before" }), "baseline ", element("span", { class: "dot after" }), "steered");
  return [
    element("div", { class: "section-head" }, element("h2", {}, "Right behind the prompt"), key),
    element("p", { class: "note" }, `KL from baseline to steered: ${figure(kl)} nats.`),
    element("ul", { class: "changes" }, lines),
  ];
}

/** What the colours of the steered text mean, and how far it is from the model as it is. */
export function outcomeNote({ kl }) {
  const mean = kl.reduce((sum, value) => sum + value, 0) / Math.max(1, kl.length);
  return element("p", { class: "note" }, `Colour: KL from the model as it is to the steered one, on the same text up to that token; full at ${FULL} nats. Mean over the steered text: ${figure(mean)} nats.`);
}

// Shows tokens: what cannot be seen made visible, activation as background, one tooltip for all with the numbers.

import { element } from "./dom.js";
import { figure } from "./numbers.js";

const GLYPHS = { "\n": "↵", "\t": "⇥", "\r": "␍" };
const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\u00a0\u034f\u115f\u1160\u3164\ufe00-\ufe0f]/u;
const LONGEST = 48;
let tooltip = null;
let described = null;
let listening = false;

/** Write a token into a node, with a glyph for whatever cannot be seen; in a chip also for spaces at its ends. */
export function writeToken(node, text, isChip = false) {
  const blank = /^[ \t\r\n]+$/.test(text);
  const signs = [...text];
  const long = signs.length > LONGEST && !blank;
  let plain = "";
  const flush = () => {
    if (plain) node.append(plain);
    plain = "";
  };
  (long ? signs.slice(0, LONGEST - 1) : signs).forEach((sign, i) => {
    const atEnd = i === 0 || i === signs.length - 1;
    const space = blank || (isChip && atEnd) ? "·" : null;
    const glyph = sign === " " ? space : glyphOf(sign);
    if (glyph === null) {
      plain += sign;
      return;
    }
    flush();
    node.append(element("span", { class: "glyph" }, glyph));
    if (sign === "\n" && !isChip) node.append(element("br"));
  });
  flush();
  if (long) node.append(element("span", { class: "glyph" }, "…"));
  if (text === "") node.append(element("span", { class: "glyph" }, "∅"));
  return node;
}

function glyphOf(sign) {
  if (sign.search(UNSEEN) < 0) return null;
  return GLYPHS[sign] ?? `‹${sign.codePointAt(0).toString(16)}›`;
}

/** A token on its own, for lists and headings. */
export function chip(text, kind = "") {
  return writeToken(element("span", { class: `chip ${kind}`.trim(), title: JSON.stringify(text) }), text, true);
}

/**
 * Tokens in a row, coloured by their values. One of them is a stop of the Tab key, and the arrow keys move from there.
 * @param {{token_ids: number[], activations: number[], peak?: number}} example
 * @param {Object<number, string>} texts text of each token id
 * @param {{strongest: number, label: string, unit?: string}} options `strongest`: the value with the full colour
 */
export function strip(example, texts, { strongest, label, unit = "does not fire" }) {
  listen();
  const stop = example.peak ?? 0;
  const spans = example.token_ids.map((id, i) => {
    const value = example.activations[i] ?? 0;
    const share = strongest > 0 ? Math.min(1, Math.abs(value) / strongest) : 0;
    const kinds = ["token", value > 0 && "fires", value < 0 && "opposes", i === example.peak && "peak"];
    const span = element("span", { class: kinds.filter(Boolean).join(" "), tabindex: i === stop ? "0" : "-1" });
    writeToken(span, texts[id] ?? `[${id}]`);
    if (value !== 0) span.style.setProperty("--heat", `${(100 * share).toFixed(1)}%`);
    Object.assign(span.dataset, { id, value, share: share.toFixed(4), unit });
    span.dataset.text = texts[id] ?? "";
    return span;
  });
  return element("div", { class: "strip", role: "group", "aria-label": label }, spans);
}

/** Hide the tooltip, as before a page is drawn anew. */
export function hideTooltip() {
  if (tooltip) tooltip.hidden = true;
  described?.removeAttribute("aria-describedby");
  described = null;
}

function show(span) {
  const { text, id, value, share, unit } = span.dataset;
  if (!tooltip?.isConnected) tooltip = document.body.appendChild(element("div", { class: "tooltip", role: "tooltip", id: "tooltip" }));
  const fires = Number(value) !== 0;
  tooltip.replaceChildren(
    element("code", {}, shorten(JSON.stringify(text))),
    element("strong", {}, fires ? figure(Number(value)) : unit),
    element("span", {}, fires ? `${Math.round(100 * share)} % of the strongest · token ${id}` : `token ${id}`),
  );
  tooltip.hidden = false;
  described?.removeAttribute("aria-describedby");
  described = span;
  span.setAttribute("aria-describedby", "tooltip");
  place(span.getClientRects()[0] ?? span.getBoundingClientRect());
}

function shorten(text) {
  return text.length > 120 ? `${text.slice(0, 119)}…` : text;
}

function place(box) {
  const { width, height } = tooltip.getBoundingClientRect();
  const rightmost = document.documentElement.clientWidth - width - 8;
  const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, rightmost));
  const top = box.top - height - 8 > 0 ? box.top - height - 8 : box.bottom + 8;
  tooltip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
}

function tokenOf(event) {
  return event.target instanceof Element ? event.target.closest(".token") : null;
}

function step(event) {
  if (event.key === "Escape") hideTooltip();
  const span = tokenOf(event);
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!span || !by || event.altKey || event.ctrlKey || event.metaKey) return;
  const all = [...span.parentElement.querySelectorAll(".token")];
  all[all.indexOf(span) + by]?.focus();
  event.preventDefault();
  event.stopPropagation();
}

function listen() {
  if (listening) return;
  listening = true;
  const follow = (event) => (tokenOf(event) ? show(tokenOf(event)) : hideTooltip());
  document.addEventListener("pointerover", follow);
  document.addEventListener("focusin", follow);
  document.addEventListener("focusout", hideTooltip);
  document.addEventListener("scroll", hideTooltip, { capture: true, passive: true });
  document.addEventListener("keydown", step, { capture: true });
}

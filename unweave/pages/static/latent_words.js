// How a latent is called: its label, or else the tokens on which it peaks.

import { element } from "./dom.js";
import { chip } from "./tokens.js";

/** The words of a latent; `row` is that of the index, which may be missing. */
export function latentWords(row, label, most = 3) {
  if (label) return element("span", { class: "label", title: label }, label);
  const texts = [...new Set(row?.peaks ?? [])].slice(0, most);
  return element("span", { class: "chips" }, texts.length ? texts.map((text) => chip(text)) : element("span", { class: "small" }, "never fired in the index"));
}

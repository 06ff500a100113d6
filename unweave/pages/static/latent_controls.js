// What one can do on the page of a latent: go to others, and choose how its examples are shown.

import { change, query } from "./address.js";
import { button, element } from "./dom.js";
import { figure } from "./numbers.js";

/**
 * Ways to other latents, with more behind them.
 * @param {{all: string, previous: (() => void) | null, next: (() => void) | null, random: () => void}} ways
 *   the address of the table, and what the buttons do; null where there is no such latent
 */
export function latentToolbar({ all, previous, next, random }, more = null) {
  return element(
    "div",
    { class: "section-head toolbar" },
    element("a", { href: all, class: "back" }, "All latents"),
    element("span", { class: "group" },
      button("← Previous", previous, { disabled: previous === null, title: "Previous latent (p)" }),
      button("Random", random, { title: "A latent that fires (r)" }),
      button("Next →", next, { disabled: next === null, title: "Next latent (n)" })),
    more,
  );
}

/**
 * The scale of colours, line breaks, and how far examples go.
 * @param {[string, string | null, boolean][]} widths text, what the address then says, and whether it is chosen
 */
export function exampleControls({ latent }, widths) {
  if (latent.n_fires === 0) return null;
  const choices = widths.map(([text, context, chosen]) => button(text, () => change({ context }, { replace: true }), { "aria-pressed": String(chosen) }));
  const box = element("input", { type: "checkbox", checked: breaksLines(), on: { change: () => change({ lines: box.checked ? "true" : null }, { replace: true }) } });
  return element(
    "div",
    { class: "section-head example-controls" },
    element("span", { class: "scale", "aria-hidden": "true" }, "0", element("span", { class: "ramp" }), figure(latent.max_activation)),
    element("label", { class: "check" }, box, "Break lines at ↵"),
    element("span", { class: "segmented", role: "group", "aria-label": "Tokens to each side" }, choices),
  );
}

/** Whether examples are broken at the ends of their lines. */
export function breaksLines() {
  return query().get("lines") === "true";
}

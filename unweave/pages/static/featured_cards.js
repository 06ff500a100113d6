// Latents that are easy to read, as cards: the strongest example of each, and what it promotes.

import { element } from "./dom.js";
import { percent } from "./numbers.js";
import { runAddress, runName } from "./state.js";
import { chip, strip } from "./tokens.js";

/** A card for each; `texts` has the text of each token id. */
export function featuredCards(featured, texts) {
  return featured.map((choice) => card(choice, texts));
}

function card({ latent, token, density, max, agreeing, examples, example, promoted }, texts) {
  const label = `Strongest example of latent ${latent}, from ${example.document}`;
  const link = element("a", { href: runAddress(runName(), "latents", latent) }, `Latent ${latent}`);
  return element(
    "article",
    { class: "card" },
    element("h3", {}, link, chip(texts[token], "hot")),
    strip(example, texts, { strongest: max, label }),
    element("p", { class: "small" }, `${agreeing} of ${examples} examples peak on it · ${percent(density)} of tokens`),
    promoted.length > 0 && element("p", { class: "small promoted" }, "promotes ", promoted.map((id) => chip(texts[id]))),
  );
}

// The first page's strip of latents that are easy to read.
"use strict";

(() => {
  const { element, numbers, tokens } = unweave;
  const { featured, tokens: table } = unweave.get("report");

  function chips(places) {
    return places.map((place) => tokens.chip(table.texts[place]));
  }

  function card(choice) {
    const { latent, example } = choice;
    const peak = table.texts[choice.token];
    const label = `Strongest example of latent ${latent}, from ${example.document}`;
    const strip = tokens.strip(example, table, choice.max, label);
    return element(
      "article",
      { class: "card" },
      element("h3", {}, element("a", { href: `latents.html#${latent}` }, `Latent ${latent}`), tokens.chip(peak)),
      strip,
      element(
        "p",
        { class: "small" },
        `${choice.agreeing} of ${choice.examples} examples peak on it · ${numbers.percent(choice.density)} of tokens`,
      ),
      choice.promoted.length
        ? element("p", { class: "small promoted" }, "promotes ", ...chips(choice.promoted))
        : null,
    );
  }

  document.getElementById("featured-cards").append(...featured.map(card));
  document.getElementById("featured-section").hidden = featured.length === 0;
})();

// One latent in full: figures, examples, and the tokens that it promotes and suppresses.
"use strict";

unweave.latentView = (() => {
  const { element, numbers, tokens } = unweave;
  const table = unweave.get("tokens");
  const index = unweave.get("latents");
  const view = document.getElementById("view");
  const live = index.n_fires.filter((n) => n > 0).length;
  const LENS =
    "The latent's decoder row through the final norm's weight and the unembedding (logit lens); " +
    "compare within a latent only.";
  let broken = false;

  /** Draw a latent from its entry in a chunk. */
  function show(latent, { examples, promoted, suppressed }) {
    const dead = index.n_fires[latent] === 0;
    const peaks = index.peaks[latent].slice(0, 4).map((place) => tokens.chip(table.texts[place]));
    const silence = `This latent never fired on the ${numbers.count(index.n_tokens)} measured tokens.`;
    view.replaceChildren(
      element("h1", {}, `Latent ${latent}`, ...peaks),
      dead ? element("p", { class: "notice" }, silence) : figures(latent),
      examples.length || !dead ? exampleSection(latent, examples) : "",
      weightSection(promoted, suppressed),
    );
  }

  /** Say why a latent cannot be shown. */
  function fail(latent, reason) {
    view.replaceChildren(element("h1", {}, `Latent ${latent}`), element("p", { class: "notice problem" }, reason));
  }

  function figures(latent) {
    const n = index.n_fires[latent];
    const rarer = index.n_fires.filter((other) => other > 0 && other < n).length;
    const weaker = index.max.filter((other, i) => index.n_fires[i] > 0 && other < index.max[latent]).length;
    const than = (count) => `more than ${Math.round((100 * count) / Math.max(1, live - 1))} % of live latents`;
    return element(
      "dl",
      { class: "numbers" },
      fact("Density", numbers.percent(index.density[latent]), `of tokens; ${than(rarer)}`),
      fact("Fires", numbers.count(n), `of ${numbers.count(index.n_tokens)} tokens`),
      fact("Strongest", numbers.value(index.max[latent]), than(weaker)),
      fact("Mean", numbers.value(index.mean[latent]), "where it fires"),
    );
  }

  function fact(name, value, remark) {
    const figure = element("dd", {}, element("strong", {}, value), element("span", {}, remark));
    return element("div", {}, element("dt", {}, name), figure);
  }

  function exampleSection(latent, examples) {
    const strongest = index.max[latent] ?? 0;
    const items = examples.map((example, i) => exampleItem(example, strongest, i));
    const list = element("ol", { class: broken ? "examples broken" : "examples" }, ...items);
    const ramp = element("span", { class: "ramp" });
    const toggle = element("input", { type: "checkbox", checked: broken });
    toggle.addEventListener("change", () => {
      broken = toggle.checked;
      list.classList.toggle("broken", broken);
    });
    return element(
      "section",
      {},
      element(
        "div",
        { class: "section-head" },
        element("h2", {}, "Strongest examples"),
        element("span", { class: "scale", "aria-hidden": "true" }, "0", ramp, numbers.value(strongest)),
        element("label", { class: "check" }, toggle, " Break lines at ↵"),
      ),
      examples.length ? list : element("p", { class: "muted" }, "No examples were kept."),
    );
  }

  function exampleItem(example, strongest, i) {
    const peak = numbers.value(example.activations[example.peak]);
    return element(
      "li",
      {},
      element("span", { class: "peak-value", title: "activation at the marked token" }, peak),
      element("div", {}, tokens.strip(example, table, strongest, `Example ${i + 1}, peak activation ${peak}`),
        element("p", { class: "source" }, example.document)),
    );
  }

  function weightSection(promoted, suppressed) {
    const heading = element("h2", {}, "Direct effect on the next token");
    if (promoted.length + suppressed.length === 0) {
      const text = "Not known: the site does not write to the residual stream, or no logit lens was applied.";
      return element("section", {}, heading, element("p", { class: "muted" }, text));
    }
    const most = Math.max(...[...promoted, ...suppressed].map(([, weight]) => Math.abs(weight ?? 0)), 1e-12);
    return element(
      "section",
      {},
      heading,
      element("p", { class: "note" }, LENS),
      element(
        "div",
        { class: "weights" },
        weightList("Promotes", "up", promoted, most),
        weightList("Suppresses", "down", suppressed, most),
      ),
    );
  }

  function weightList(title, kind, weights, most) {
    const items = weights.map(([place, weight]) => {
      const size = Math.abs(weight ?? 0);
      const bar = element("span", { class: "bar", style: { width: `${(100 * size) / most}%` } });
      const number = weight === null ? "–" : `${weight < 0 ? "−" : "+"}${size.toFixed(2)}`;
      return element(
        "li",
        {},
        tokens.chip(table.texts[place]),
        element("span", { class: "track" }, bar),
        element("span", { class: "number" }, number),
      );
    });
    return element("div", { class: `weight-list ${kind}` }, element("h3", {}, title), element("ol", {}, ...items));
  }

  return { show, fail };
})();

// All that is known of one latent, as nodes made of the JSON of its page: for the app, exports and notebooks alike.

import { rangeHistogram } from "./charts.js";
import { element } from "./dom.js";
import { count, counted, figure, percent, ratio, signed } from "./numbers.js";
import { chip, strip } from "./tokens.js";

const LENS = "The latent's decoder row through the final norm's weight and the unembedding; compare within a latent only.";
const VARIABLES = {
  token: ["Token", "the token itself"],
  previous: ["Before", "the token before"],
  next: ["After", "the token after"],
  position: ["Position", "the place in the sequence"],
  bigram: ["Two tokens", "the token and the one before"],
  trigram: ["Three tokens", "the token and the two before"],
};

/** The number of the latent, tokens on which it peaks, and what is to be noted. */
export function latentHeading({ latent, texts, flags }) {
  const peaks = new Map();
  for (const { token_ids, peak } of latent.examples) peaks.set(token_ids[peak], (peaks.get(token_ids[peak]) ?? 0) + 1);
  const most = [...peaks].sort((a, b) => b[1] - a[1]).slice(0, 5);
  return element(
    "h1",
    { class: "latent-name" },
    `Latent ${latent.latent} `,
    most.map(([id]) => chip(texts[id] ?? "", "hot")),
    flags.map((flag) => element("span", { class: "flag" }, flag)),
  );
}

/** Density, fires and strength. */
export function latentFigures({ latent, n_tokens }) {
  const fact = (name, value, remark) => element("div", {}, element("dt", {}, name), element("dd", {}, element("strong", {}, value), element("span", {}, remark)));
  const median = latent.quantiles.find(([share]) => share === 0.5)?.[1];
  return element(
    "dl",
    { class: "numbers" },
    fact("Density", percent(latent.density), "of tokens"),
    fact("Fires", count(latent.n_fires), `of ${counted(n_tokens, "token")}`),
    fact("Strongest", figure(latent.max_activation), "activation"),
    fact("Mean", figure(latent.mean_activation), median === undefined ? "where it fires" : `median ${figure(median)}`),
  );
}

/** Histograms of its activations and of what it adds to logits. */
export function latentHistograms({ latent }) {
  const cards = [];
  if (latent.histogram && latent.histogram.high > latent.histogram.low) {
    const options = { label: "How often it fires how strongly", write: figure, noun: "fires" };
    cards.push(titled("Activations", rangeHistogram(latent.histogram, options), "where it fires; heights by their square root"));
  }
  if (latent.logits && latent.logits.high > latent.logits.low) {
    const { low, high, counts } = latent.logits;
    const middle = (i) => low + ((high - low) * (i + 0.5)) / counts.length;
    const options = { label: "What it adds to the logits of all tokens", write: signed, noun: "tokens", kind: (i) => (middle(i) < 0 ? "cool" : "warm") };
    cards.push(titled("Logits", rangeHistogram(latent.logits, options), "what a unit of it adds to each token's logit"));
  }
  return cards;
}

/** Tokens that it promotes and suppresses. */
export function latentWeights({ latent, texts }) {
  const { promoted, suppressed } = latent;
  if (promoted.length + suppressed.length === 0) {
    return [titled("Direct effect", element("p", { class: "note" }, "Not known: its site does not write to the residual stream."))];
  }
  const most = Math.max(...[...promoted, ...suppressed].map(({ weight }) => Math.abs(weight ?? 0)), 1e-12);
  const list = (title, kind, weights) => {
    const rows = weights.map(({ token_id, weight }) => element("li", {}, chip(texts[token_id] ?? ""), meter(Math.abs(weight ?? 0) / most), element("span", { class: "number" }, signed(weight))));
    return titled(title, element("ol", { class: `weights ${kind}` }, rows));
  };
  const cards = [list("Promotes", "up", promoted), list("Suppresses", "down", suppressed)];
  cards[0].append(element("p", { class: "note" }, LENS));
  return cards;
}

/** Strongest examples, then those drawn from each share of its fires. */
export function latentExamples({ latent, texts }, { lines = false } = {}) {
  if (latent.n_fires === 0) return element("section", {}, element("p", { class: "notice" }, "This latent never fires on the indexed text."));
  const groups = latent.groups.map((group, i) => {
    const head = element("div", { class: "group-head" }, element("h3", {}, shareName(i, latent.groups)), element("span", { class: "small" }, `${figure(group.low)} to ${figure(group.high)} · ${percent(group.share)} of its fires`));
    return [head, exampleList(group.examples, latent, texts, `Share ${i + 1}`)];
  });
  return element("section", { class: lines ? "broken" : null }, element("h2", {}, "Strongest"), exampleList(latent.examples, latent, texts, "Strongest"), groups.length ? element("h2", { class: "drawn" }, "Drawn from all strengths") : null, groups);
}

function shareName(i, groups) {
  const before = groups.slice(0, i).reduce((sum, { share }) => sum + share, 0);
  const whole = (share) => Math.round(100 * share);
  return i === 0 ? `Strongest ${whole(groups[0].share)} %` : `Next ${whole(before)} to ${whole(before + groups[i].share)} %`;
}

function exampleList(examples, latent, texts, name) {
  const items = examples.map((example, i) => {
    const peak = figure(example.activations[example.peak]);
    const label = `${name}, example ${i + 1}, activation ${peak}`;
    return element(
      "li",
      {},
      element("span", { class: "peak-value", title: "activation at the marked token" }, peak),
      element("div", {}, strip(example, texts, { strongest: latent.max_activation, label }), element("p", { class: "source" }, example.document)),
    );
  });
  return element("ol", { class: "examples card" }, items);
}

/** What tells when it fires: how much each variable says, with its most frequent tokens; and a rule. */
export function latentTelling({ latent, texts }) {
  const written = (variable, ids) => (variable === "position" ? element("span", { class: "chip" }, `#${ids[0]}`) : ids.map((id) => chip(texts[id] ?? "")));
  const rows = Object.entries(latent.telling).map(([variable, { share, entropy, top }]) => {
    const [name, meaning] = VARIABLES[variable] ?? [variable, variable];
    const title = `${percent(Math.max(0, share))} of the uncertainty goes away when one knows ${meaning}; its entropy where the latent fires is ${figure(entropy)} bits`;
    const keys = top.map(({ token_ids, count: n }) => element("span", { class: "key", title: counted(n, "fire") }, written(variable, token_ids)));
    return element("li", { title }, element("span", {}, name), meter(Math.max(0, share)), element("span", { class: "number" }, percent(Math.max(0, share))), element("div", { class: "chips" }, keys));
  });
  return [...(latent.rule ? [ruleCard(latent.rule, written)] : []), ...(rows.length ? [titled("What tells", element("ul", { class: "telling" }, rows), "share of the uncertainty about its firing that goes away, on documents that it was not learned from")] : [])];
}

function ruleCard({ variable, token_ids, f1, precision, recall }, written) {
  const keys = token_ids.slice(0, 24).map((ids) => element("span", { class: "key" }, written(variable, ids)));
  const more = token_ids.length > keys.length ? element("span", { class: "small" }, `and ${token_ids.length - keys.length} more`) : null;
  const fact = (name, value) => element("span", {}, `${name} `, element("strong", {}, ratio(value)));
  const scores = element("p", { class: "scores" }, fact("F1", f1), fact("precision", precision), fact("recall", recall));
  return titled("Rule", [scores, element("div", { class: "chips" }, keys, more)], `fires where ${(VARIABLES[variable] ?? ["", variable])[1]} is one of these`);
}

/** Latents that fire together with it or write alike, and coordinates of its direction. */
export function latentRelations({ latent, others }, address) {
  const name = (id) => {
    const { label, peaks } = others[id] ?? { label: "", peaks: [] };
    return [element("a", { href: address(id) }, String(id)), label ? element("span", { class: "label" }, label) : element("span", { class: "chips" }, peaks.slice(0, 2).map((text) => chip(text)))];
  };
  const list = (title, note, rows) => (rows.length ? titled(title, element("ol", { class: "relations" }, rows.map((row) => element("li", {}, row))), note) : null);
  const number = (text, title) => element("span", { class: "number", title }, text);
  return [
    list("Partners", "fire on the same tokens: Jaccard index, and logarithm of how much oftener than by chance",
      latent.partners.slice(0, 10).map(({ latent: id, jaccard, pmi }) => [element("span", { class: "who" }, name(id)), number(ratio(jaccard), "Jaccard index"), number(signed(pmi), "pointwise mutual information")])),
    list("Similar", "write in nearly the same direction: cosine",
      latent.similar.slice(0, 10).map(({ latent: id, cosine }) => [element("span", { class: "who" }, name(id)), number(ratio(cosine), "cosine")])),
    list("Coordinates", "largest entries of what it writes, and their share of the whole",
      latent.neurons.map(({ neuron, value, share }) => [element("span", { class: "who" }, `${neuron}`), number(signed(value), "entry"), number(percent(share), "share")])),
  ].filter(Boolean);
}

function titled(title, content, note = null) {
  return element("section", { class: "card padded panel" }, element("h2", {}, title), note && element("p", { class: "note" }, note), content);
}

function meter(share) {
  return element("span", { class: "meter" }, element("span", { style: { width: `${(100 * Math.min(1, share)).toFixed(1)}%` } }));
}

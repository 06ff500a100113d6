// The box in which a latent is tried on a text, by the model itself.

import { ask } from "./api.js";
import { button, element, notice } from "./dom.js";
import { counted, figure } from "./numbers.js";
import { strip } from "./tokens.js";

/** The box, which keeps its text from latent to latent; `address` says where a latent is tried. */
export function latentTest(address) {
  let data = null;
  let asked = null;
  let tried = false;
  const text = element("textarea", { rows: 3, placeholder: "Type or paste a text to see where this latent fires on it", "aria-label": "Text to test", spellcheck: "false" });
  const result = element("div", { class: "tested", "aria-live": "polite" });
  const run = button("Test", () => test(), { class: "primary", title: "Ctrl Enter" });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) test();
  });

  async function test() {
    if (!text.value) return result.replaceChildren();
    asked?.abort();
    asked = new AbortController();
    const own = asked;
    run.disabled = true;
    result.replaceChildren(element("p", { class: "note" }, "The model reads the text; the first time it is loaded, which takes a while."));
    try {
      const found = await ask("POST", address(data.latent.latent), { text: text.value }, own.signal);
      tried = true;
      result.replaceChildren(...tested(found, data.latent.max_activation));
    } catch (error) {
      if (error.name !== "AbortError") result.replaceChildren(notice(error.message, "problem"));
    } finally {
      if (own === asked) run.disabled = false;
    }
  }

  /** Be the box of another latent. */
  function show(page) {
    const isOther = data !== null && data.latent.latent !== page.latent.latent;
    data = page;
    if (isOther && tried && text.value) test();
  }

  const node = element("section", { class: "card padded panel test" }, element("div", { class: "section-head" }, element("h2", {}, "Test"), run), text, result);
  return { node, show, focus: () => text.focus() };
}

/** What a test found: a strip for each window of the text. */
export function tested({ windows, texts, max_activation }, usual) {
  const strongest = Math.max(usual, max_activation);
  const fires = windows.reduce((sum, { activations }) => sum + activations.filter((value) => value !== 0).length, 0);
  const tokens = windows.reduce((sum, { token_ids }) => sum + token_ids.length, 0);
  const strips = windows.map(({ token_ids, activations }, i) => {
    const peak = activations.indexOf(Math.max(...activations));
    const example = { token_ids, activations, peak: activations[peak] > 0 ? peak : undefined };
    return strip(example, texts, { strongest, label: `Window ${i + 1} of ${windows.length}` });
  });
  const share = usual > 0 && max_activation > 0 ? `, ${Math.round((100 * max_activation) / usual)} % of its strongest` : "";
  const said = fires === 0 ? `It does not fire on these ${counted(tokens, "token")}.` : `It fires on ${fires} of ${counted(tokens, "token")}, at most ${figure(max_activation)}${share}.`;
  const cut = windows.length > 1 ? ` The text was read in ${windows.length} windows.` : "";
  return [element("p", { class: "note" }, said + cut), ...strips];
}

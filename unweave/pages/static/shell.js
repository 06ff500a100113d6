// Draws a page from its JSON twin, below the header.

import { onChange } from "./address.js";
import { twin } from "./api.js";
import { element, notice } from "./dom.js";
import { frame } from "./frame.js";
import { hideTooltip } from "./tokens.js";

/**
 * Draw this page from its JSON twin, now and whenever its address changes.
 * @param {object} page
 * @param {(data: any, main: HTMLElement, fresh: boolean) => void} page.draw fills `main`; `fresh`: it is empty
 * @param {[string, string, (event: KeyboardEvent) => void][]} [page.keys] those of `frame`
 * @param {() => Promise<any>} [page.load] what to draw; by default the JSON twin of the address
 * @returns {{refresh: () => Promise<void>}}
 */
export function open({ draw, keys = [], load = twin }) {
  const main = element("main", { id: "main", tabindex: "-1" });
  const bar = element("div", { class: "loading", role: "progressbar", "aria-label": "loading", hidden: true });
  frame(keys);
  document.querySelector("header.top").after(bar, main);
  let asked = 0;
  let fresh = true;
  async function refresh() {
    const mine = ++asked;
    hideTooltip();
    const late = setTimeout(() => (bar.hidden = false), 150);
    try {
      const data = await load();
      if (mine !== asked) return;
      if (fresh) main.replaceChildren();
      draw(data, main, fresh);
      fresh = false;
    } catch (error) {
      if (mine !== asked) return;
      if (error.name !== "Error") console.error(error); // no refusal of the server, but a mistake of ours
      main.replaceChildren(problemPage(error));
      fresh = true;
    } finally {
      clearTimeout(late);
      if (mine === asked) {
        bar.hidden = true;
        document.body.dataset.drawn = asked;
      }
    }
  }
  onChange(refresh);
  refresh();
  return { refresh };
}

function problemPage(error) {
  return element("div", { class: "narrow" }, element("h1", {}, "This page cannot be shown"), notice(error.message, "problem"));
}

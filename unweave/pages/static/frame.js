// What stands around every page: the header with its navigation, the theme, and keys with their help.

import { isHere } from "./address.js";
import { button, element } from "./dom.js";
import { HOME, ICON, places, runAddress, runName } from "./state.js";

const THEMES = ["auto", "light", "dark"];
let known = [];

/**
 * Put the header above the page, and listen to keys.
 * @param {[string, string, (event: KeyboardEvent) => void][]} keys key, what it does, and how
 */
export function frame(keys = []) {
  known = [...keys, ["g", "Go to a latent or a page", goTo], ["?", "These keys", showKeys]];
  document.addEventListener("keydown", listen);
  document.body.prepend(element("a", { class: "skip", href: "#main" }, "Skip to the content"), header());
}

function header() {
  const run = runName();
  const brand = element("a", { class: "brand", href: HOME }, element("img", { src: ICON, alt: "", width: 22, height: 22 }), "unweave");
  const name = run && element("a", { class: "run", href: runAddress(run), title: run.replaceAll("~", "/") }, run.replaceAll("~", "/"));
  const links = places().map(([address, text]) => element("a", { href: address, "aria-current": isHere(address) ? "page" : null }, text));
  return element(
    "header",
    { class: "top" },
    element("div", { class: "names" }, brand, name),
    element("nav", { "aria-label": "Pages" }, links),
    element("div", { class: "tools" }, themeButton(), button("?", showKeys, { class: "quiet", title: "Keys (?)", "aria-label": "Keys" })),
  );
}

function themeButton() {
  const shown = { auto: "◐", light: "○", dark: "●" };
  const now = () => document.documentElement.dataset.theme ?? "auto";
  const node = button("", () => {
    const next = THEMES[(THEMES.indexOf(now()) + 1) % THEMES.length];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("unweave-theme", next);
    } catch {
      // the choice holds for this page only
    }
    write();
    window.dispatchEvent(new Event("unweave-theme"));
  }, { class: "quiet" });
  const write = () => {
    node.textContent = shown[now()];
    node.title = `Theme: ${now()}`;
    node.setAttribute("aria-label", `Theme: ${now()}`);
  };
  write();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("unweave-theme")));
  return node;
}

function listen(event) {
  const typing = event.target instanceof Element && event.target.closest("input, select, textarea, dialog");
  if (event.key === "Escape" && typing && !event.target.closest("dialog")) event.target.blur();
  if (typing || event.altKey || event.ctrlKey || event.metaKey) return;
  const found = known.find(([key]) => key === event.key);
  if (!found) return;
  event.preventDefault();
  found[2](event);
}

function showKeys() {
  const rows = known.map(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)]);
  dialog("Keys", element("dl", { class: "keys" }, rows));
}

function goTo() {
  const run = runName();
  const found = places();
  const input = element("input", { type: "search", placeholder: run ? "Number of a latent, or a page" : "A page", "aria-label": "Go to", autocomplete: "off" });
  const list = element("ul", { class: "places" });
  const fitting = () => {
    const wanted = input.value.trim().toLowerCase();
    const pages = found.filter(([, text]) => text.toLowerCase().startsWith(wanted));
    return run && /^\d+$/.test(wanted) ? [[runAddress(run, "latents", wanted), `Latent ${wanted}`], ...pages] : pages;
  };
  const write = () => list.replaceChildren(...fitting().map(([address, text]) => element("li", {}, element("a", { href: address }, text))));
  input.addEventListener("input", write);
  const go = (event) => {
    event.preventDefault();
    const first = fitting()[0];
    if (first) location.assign(first[0]);
  };
  write();
  dialog("Go to", element("form", { on: { submit: go } }, input, list));
  input.focus();
}

/** A dialog over the page, closed by Escape, its button, or a click beside it. */
export function dialog(title, ...content) {
  const node = element("dialog", { "aria-label": title });
  const close = () => node.close();
  node.append(element("div", { class: "section-head" }, element("h2", {}, title), button("Close", close, { class: "quiet" })), ...content);
  node.addEventListener("close", () => node.remove());
  node.addEventListener("click", (event) => event.target === node && close());
  document.body.append(node);
  node.showModal();
  return node;
}

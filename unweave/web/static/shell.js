// What all pages share: the header with its navigation, the theme, keys and their help, and drawing from the JSON twin.

import { twin } from "./api.js";
import { button, element, notice } from "./dom.js";
import { HOME, ICON, isHere, onChange, pageAddress, runAddress, runName } from "./state.js";
import { hideTooltip } from "./tokens.js";

/** Pages of a run, by the last part of their address. */
const RUN_PAGES = [
  ["", "Latents"],
  ["prompt", "Prompt"],
  ["steer", "Steer"],
  ["lists", "Lists"],
  ["map", "Map"],
  ["evals", "Evals"],
];
/** Pages of all runs, by their address. */
const PAGES = [
  [HOME, "Runs"],
  [pageAddress("compare"), "Compare"],
  [pageAddress("sweeps"), "Sweeps"],
];
const THEMES = ["auto", "light", "dark"];

/**
 * Draw this page from its JSON twin, now and whenever its address changes.
 * @param {object} page
 * @param {(data: any, main: HTMLElement, fresh: boolean) => void} page.draw fills `main`; `fresh`: it is empty
 * @param {[string, string, (event: KeyboardEvent) => void][]} [page.keys] key, what it does, and how
 * @param {() => Promise<any>} [page.load] what to draw; by default the JSON twin of the address
 * @returns {{refresh: () => Promise<void>}}
 */
export function open({ draw, keys = [], load = twin }) {
  const main = element("main", { id: "main", tabindex: "-1" });
  const bar = element("div", { class: "loading", role: "progressbar", "aria-label": "loading", hidden: true });
  document.body.prepend(element("a", { class: "skip", href: "#main" }, "Skip to the content"), header(), bar, main);
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
  listenToKeys([...keys, ["g", "Go to a latent or a page", goTo], ["?", "These keys", () => showKeys(keys)]]);
  onChange(refresh);
  refresh();
  return { refresh };
}

function problemPage(error) {
  return element("div", { class: "narrow" }, element("h1", {}, "This page cannot be shown"), notice(error.message, "problem"));
}

function header() {
  const run = runName();
  const brand = element("a", { class: "brand", href: HOME }, element("img", { src: ICON, alt: "", width: 22, height: 22 }), "unweave");
  const name = run && element("a", { class: "run", href: runAddress(run), title: run.replaceAll("~", "/") }, run.replaceAll("~", "/"));
  const links = targets().map(([address, text]) => {
    return element("a", { href: address, "aria-current": isHere(address) ? "page" : null }, text);
  });
  return element(
    "header",
    { class: "top" },
    element("div", { class: "names" }, brand, name),
    element("nav", { "aria-label": "Pages" }, links),
    element("div", { class: "tools" }, themeButton(), button("?", () => showKeys(), { class: "quiet", title: "Keys (?)", "aria-label": "Keys" })),
  );
}

/** Where the navigation leads from here. */
function targets() {
  const run = runName();
  const own = run ? RUN_PAGES.map(([part, text]) => [part ? runAddress(run, part) : runAddress(run), text]) : [];
  return [...(run ? own : PAGES), ...(run ? PAGES.slice(1) : [])].filter(([address]) => address !== null);
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

let known = [];

function listenToKeys(keys) {
  known = keys;
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input, select, textarea, dialog");
    if (event.key === "Escape" && typing && !event.target.closest("dialog")) event.target.blur();
    if (typing || event.altKey || event.ctrlKey || event.metaKey) return;
    const found = known.find(([key]) => key === event.key);
    if (!found) return;
    event.preventDefault();
    found[2](event);
  });
}

function showKeys() {
  const rows = known.map(([key, text]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, text)]);
  dialog("Keys", element("dl", { class: "keys" }, rows));
}

function goTo() {
  const run = runName();
  const places = targets();
  const input = element("input", { type: "search", placeholder: run ? "Number of a latent, or a page" : "A page", "aria-label": "Go to", autocomplete: "off" });
  const list = element("ul", { class: "places" });
  const fitting = () => {
    const wanted = input.value.trim().toLowerCase();
    const pages = places.filter(([, text]) => text.toLowerCase().startsWith(wanted));
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

// Stands in for state.js in pages that no server sends: each page is a file, and its query says what it shows.

/** The address of the page of all runs, and that of the icon. */
export const HOME = "index.html";
export const ICON = "assets/icon.svg";
const CHANGED = "unweave-state";

/** The query as it is now. */
export function query() {
  return new URLSearchParams(location.search);
}

/** The name of the run in the address, or null. */
export function runName() {
  return query().get("run");
}

/** The address of a page of a run, or null for pages that need a server. */
export function runAddress(run, ...parts) {
  const params = new URLSearchParams({ run });
  if (parts.length === 0) return `latents.html?${params}`;
  if (parts[0] !== "latents" || parts.length !== 2) return null;
  params.set("latent", parts[1]);
  return `latent.html?${params}`;
}

/** The address of a page of several runs, which needs a server. */
export function pageAddress() {
  return null;
}

/** Whether an address is that of this page, whatever its query. */
export function isHere(address) {
  return new URL(address, location.href).pathname === location.pathname;
}

/** This page's address with some of its query changed; null and "" remove a value, an array gives several. */
export function changed(changes) {
  const params = query();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") params.append(name, one);
    }
  }
  return `${location.pathname}?${params}`;
}

/** Change the query and tell the page; `replace` leaves no step in the history. */
export function change(changes, { replace = false } = {}) {
  visit(changed(changes), { replace });
}

/** Go to another address of the same page without loading the page anew. */
export function visit(address, { replace = false } = {}) {
  const target = new URL(address, location.href);
  if (target.href === location.href) return;
  history[replace ? "replaceState" : "pushState"](null, "", target.href);
  window.dispatchEvent(new Event(CHANGED));
}

/** Call a function whenever the address has changed, by this page or by the browser's back and forward. */
export function onChange(listener) {
  window.addEventListener("popstate", listener);
  window.addEventListener(CHANGED, listener);
}

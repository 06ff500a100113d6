// The state of a page is its address: reading it, and changing it with or without a step in the browser's history.

/** The address of the page of all runs, and that of the icon. */
export const HOME = "/";
export const ICON = "/static/icon.svg";
const CHANGED = "unweave-state";

/** The query as it is now. */
export function query() {
  return new URLSearchParams(location.search);
}

/** The name of the run in the address, or null. */
export function runName(path = location.pathname) {
  const found = path.match(/^\/runs\/([^/]+)/);
  return found ? decodeURIComponent(found[1]) : null;
}

/** The address of a page of a run: runAddress("demo", "latents", 3). */
export function runAddress(run, ...parts) {
  return ["/runs", encodeURIComponent(run), ...parts.map((part) => encodeURIComponent(part))].join("/");
}

/** The address of a page of several runs. */
export function pageAddress(name) {
  return `/${name}`;
}

/** Whether an address is that of this page, whatever its query. */
export function isHere(address) {
  return decodeURI(address) === decodeURI(location.pathname);
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
  const text = params.toString();
  return location.pathname + (text ? `?${text}` : "");
}

/** Change the query and tell the page; `replace` leaves no step in the history, as for each letter of a search. */
export function change(changes, { replace = false } = {}) {
  visit(changed(changes), { replace });
}

/** Go to another address of the same page, such as the next latent, without loading the page anew. */
export function visit(address, { replace = false } = {}) {
  if (address === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", address);
  window.dispatchEvent(new Event(CHANGED));
}

/** Call a function whenever the address has changed, by this page or by the browser's back and forward. */
export function onChange(listener) {
  window.addEventListener("popstate", listener);
  window.addEventListener(CHANGED, listener);
}

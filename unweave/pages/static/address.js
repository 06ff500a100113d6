// The state of a page is its address: reading it, and changing it with or without a step in the browser's history.

const CHANGED = "unweave-state";

/** The query as it is now. */
export function query() {
  return new URLSearchParams(location.search);
}

/** Whether an address is that of this page, whatever its query. */
export function isHere(address) {
  return decodeURI(new URL(address, location.href).pathname) === decodeURI(location.pathname);
}

/** Change the query and tell the page; null and "" remove a value, an array gives several. `replace`: as for `visit`. */
export function change(changes, { replace = false } = {}) {
  const params = query();
  for (const [name, value] of Object.entries(changes)) {
    params.delete(name);
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== null && one !== undefined && one !== "") params.append(name, one);
    }
  }
  const text = params.toString();
  visit(location.pathname + (text ? `?${text}` : ""), { replace });
}

/**
 * Go to another address of the same page, such as the next latent, without loading the page anew.
 * `replace` leaves no step in the history, as for each letter of a search.
 */
export function visit(address, { replace = false } = {}) {
  const target = new URL(address, location.href).href;
  if (target === location.href) return;
  history[replace ? "replaceState" : "pushState"](null, "", target);
  window.dispatchEvent(new Event(CHANGED));
}

/** Call a function whenever the address has changed, by this page or by the browser's back and forward. */
export function onChange(listener) {
  window.addEventListener("popstate", listener);
  window.addEventListener(CHANGED, listener);
}

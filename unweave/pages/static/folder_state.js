// Stands in for state.js in pages that no server sends: each page is a file, and its query says what it shows.

import { query } from "./address.js";

/** The address of the first page, and that of the icon. */
export const HOME = "index.html";
export const ICON = "assets/icon.svg";

/** The name of the run in the address, or that of the only run of the folder, or null. */
export function runName() {
  return query().get("run") ?? document.documentElement.dataset.run ?? null;
}

/** The address of the table of a run, or of one of its latents: runAddress("demo", "latents", 3). */
export function runAddress(run, ...parts) {
  const params = new URLSearchParams({ run });
  if (parts.length === 0) return `latents.html?${params}`;
  params.set("latent", parts[1]);
  return `latent.html?${params}`;
}

/** Where one can go from here: addresses and names of pages. */
export function places() {
  const run = runName();
  const first = [HOME, document.documentElement.dataset.home];
  return run === null ? [first] : [first, [runAddress(run), "Latents"]];
}

// The addresses of the app's pages.

/** The address of the page of all runs, and that of the icon. */
export const HOME = "/";
export const ICON = "/static/icon.svg";
/** Pages of a run, by the last part of their address. */
const RUN_PAGES = [
  ["", "Latents"],
  ["prompt", "Prompt"],
  ["steer", "Steer"],
  ["lists", "Lists"],
  ["map", "Map"],
  ["evals", "Evals"],
];
/** Pages of several runs. */
const PAGES = [
  ["/compare", "Compare"],
  ["/sweeps", "Sweeps"],
];

/** The name of the run in the address, or null. */
export function runName(path = location.pathname) {
  const found = path.match(/^\/runs\/([^/]+)/);
  return found ? decodeURIComponent(found[1]) : null;
}

/** The address of a page of a run: runAddress("demo", "latents", 3). */
export function runAddress(run, ...parts) {
  return ["/runs", encodeURIComponent(run), ...parts.map((part) => encodeURIComponent(part))].join("/");
}

/** Where one can go from here: addresses and names of pages. */
export function places() {
  const run = runName();
  if (run === null) return [[HOME, "Runs"], ...PAGES];
  return [...RUN_PAGES.map(([part, text]) => [part ? runAddress(run, part) : runAddress(run), text]), ...PAGES];
}

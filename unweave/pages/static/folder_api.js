// Stands in for api.js in pages that no server sends: answers from the data beside them, as the server would.

import { query } from "./address.js";
import { densities, found } from "./folder_table.js";
import { runName } from "./state.js";

const PAGES = { runs: runsPage, latents: latentsPage, latent: latentPage };
const inflated = new Map();

/** What the server's JSON twin of this page would hold. */
export function twin() {
  return PAGES[document.documentElement.dataset.page]();
}

function runsPage() {
  return unweave.get("runs");
}

async function latentsPage() {
  const { table, run } = await runData();
  const { rows, n } = found(table, query());
  const labels = Object.fromEntries(rows.filter((row) => table.labels[row.latent]).map((row) => [row.latent, table.labels[row.latent]]));
  const lists = Object.keys(table.lists);
  return { ...table.about, run, found: n, rows, labels, densities: densities(table.columns.density), columns: table.meanings, lists };
}

async function latentPage() {
  const { table, run } = await runData();
  const asked = query().get("latent");
  const at = table.columns.latent.findIndex((latent) => String(latent) === asked);
  if (at < 0) throw new Error(`latent ${asked} is not in this folder`);
  const latent = table.columns.latent[at];
  const number = String(Math.floor(at / table.chunk)).padStart(4, "0");
  const [texts, chunk] = await Promise.all([packed(`${run.name}/tokens`), packed(`${run.name}/latents-${number}`)]);
  const reach = Math.min(table.reach, Number(query().get("context") ?? 12) || table.reach);
  const density = table.columns.density[at];
  const record = shortened(chunk[at % table.chunk], reach);
  return {
    ...table.about, run, texts, latent: record, reach,
    longest: table.reach,
    flags: table.flags.filter(([, above, most]) => above < density && density <= most).map(([name]) => name),
    others: others(table, record),
    neighbours: neighbours(table, at),
    written: { label: table.labels[latent] ?? "", note: table.notes[latent] ?? "" },
    lists: Object.fromEntries(Object.entries(table.lists).map(([name, members]) => [name, members.includes(latent)])),
  };
}

/** How the latents that a page names are called. */
function others({ columns, labels }, { partners, similar }) {
  const named = (latent) => [latent, { label: labels[latent] ?? "", peaks: columns.peaks[columns.latent.indexOf(latent)] ?? [] }];
  return Object.fromEntries([...partners, ...similar].map(({ latent }) => named(latent)));
}

/** Where one can go from a latent: those before and behind it, all of them, and those that fire. */
function neighbours({ columns: { latent, n_fires } }, at) {
  return { previous: latent[at - 1] ?? null, next: latent[at + 1] ?? null, all: new Set(latent), firing: latent.filter((_, i) => n_fires[i] > 0) };
}

/** A record whose examples have at most `reach` tokens to each side of their peaks. */
function shortened(record, reach) {
  const cut = (example) => {
    const first = Math.max(0, example.peak - reach);
    const shown = [first, example.peak + reach + 1];
    return { ...example, token_ids: example.token_ids.slice(...shown), activations: example.activations.slice(...shown), peak: example.peak - first };
  };
  const groups = record.groups.map((group) => ({ ...group, examples: group.examples.map(cut) }));
  return { ...record, examples: record.examples.map(cut), groups };
}

async function runData() {
  const run = unweave.get("runs").runs.find(({ name }) => name === runName());
  if (!run) throw new Error(`there is no run ${JSON.stringify(runName())} in this folder`);
  return { run, table: await packed(`${run.name}/table`) };
}

/** What a data file holds, inflated once. */
function packed(name) {
  if (!inflated.has(name)) inflated.set(name, inflate(name));
  return inflated.get(name);
}

async function inflate(name) {
  const { deflated } = await unweave.load(name);
  const bytes = Uint8Array.from(atob(deflated), (sign) => sign.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

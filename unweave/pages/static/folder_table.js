// Sorts, searches and filters the table of latents in the browser, with the server's rules.

const WORDS = ["peaks", "promoted", "rule"];
const MOST = 1000;
const PER_DECADE = 4;
const DECADES = [-7, 0];

/** The rows of a page of the table, and how many fit in all. */
export function found(table, state) {
  const { columns } = table;
  const fits = [searched(table, state.get("search") ?? ""), ...state.getAll("range").map((range) => inRange(columns, range)), listed(table, state)];
  const places = columns.latent.map((_, i) => i).filter((i) => fits.every((fit) => fit(i)));
  const sort = state.get("sort") ?? "latent";
  const values = known(columns, sort);
  const sign = state.get("descending") === "true" ? -1 : 1;
  places.sort((i, j) => sign * (values[i] - values[j]) || columns.latent[i] - columns.latent[j]);
  const offset = Number(state.get("offset") ?? 0);
  const limit = Math.min(MOST, Number(state.get("limit") ?? 100));
  const names = Object.keys(columns);
  const rows = places.slice(offset, offset + limit).map((i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
  return { rows, n: places.length };
}

/** How many latents fire on which share of tokens, in bins of the logarithm. */
export function densities(shares) {
  const n = (DECADES[1] - DECADES[0]) * PER_DECADE;
  const counts = new Array(n).fill(0);
  const alive = shares.filter((share) => share > 0);
  for (const share of alive) counts[Math.max(0, Math.min(n - 1, Math.floor((Math.log10(share) - DECADES[0]) * PER_DECADE)))] += 1;
  return { edges: Array.from({ length: n + 1 }, (_, i) => DECADES[0] + i / PER_DECADE), counts, n_dead: shares.length - alive.length };
}

function known(columns, name) {
  if (name in columns && !WORDS.includes(name)) return columns[name];
  throw new Error(`unknown column ${JSON.stringify(name)}`);
}

/** A search has words with which a token begins, or a text without letters that a token holds; or it is a label, or a number. */
function searched({ columns, labels, notes }, search) {
  const wanted = folded(search.trim());
  if (!wanted) return () => true;
  const words = wordsOf(wanted);
  const written = (i) => folded(`${labels[columns.latent[i]] ?? ""}\n${notes[columns.latent[i]] ?? ""}`).includes(wanted);
  const texts = (i) => WORDS.flatMap((name) => columns[name][i]);
  const inTokens = words.length
    ? (i) => {
        const own = texts(i).flatMap((text) => wordsOf(folded(text)));
        return words.every((word) => own.some((one) => one.startsWith(word)));
      }
    : (i) => texts(i).some((text) => text.includes(search.trim()));
  return (i) => String(columns.latent[i]) === wanted || inTokens(i) || written(i);
}

function wordsOf(text) {
  return text.split(/[^\p{L}\p{N}]+/u).filter(Boolean);
}

/** In small letters without accents. */
function folded(text) {
  return text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
}

function inRange(columns, range) {
  const [name, low, high] = range.split(":");
  const values = known(columns, name);
  return (i) => (!low || values[i] >= Number(low)) && (!high || values[i] <= Number(high));
}

function listed({ columns, labels, lists }, state) {
  const list = state.get("list");
  const members = list ? new Set(lists[list] ?? []) : null;
  const labelled = state.get("labelled") === "true";
  return (i) => (!members || members.has(columns.latent[i])) && (!labelled || Boolean(labels[columns.latent[i]]));
}

// The list of latents: search, order, and only those rows in the document that can be seen.
"use strict";

unweave.latentList = (() => {
  const { element, numbers, tokens } = unweave;
  const table = unweave.get("tokens");
  const index = unweave.get("latents");
  const ROW = 58;
  const MARGIN = 8;
  const WRITTEN = { "↵": "\n", "\\n": "\n", "⇥": "\t", "\\t": "\t", "·": " " };

  const scroller = document.getElementById("list");
  const rows = document.getElementById("rows");
  const lowered = table.texts.map((text) => text.toLowerCase());
  const drawn = new Map();
  let found = [];
  let current = null;

  /** Latents that fit the query, the number itself first, in the order asked for. */
  function find({ query, sort, hideDead }) {
    const any = query.trim() === "";
    const wanted = query.toLowerCase().replace(/↵|\\n|⇥|\\t|·/g, (sign) => WRITTEN[sign]);
    const places = new Set();
    if (!any) lowered.forEach((text, place) => text.includes(wanted) && places.add(place));
    const isWanted = (place) => places.has(place);
    const number = /^#?\d+$/.test(wanted.trim()) ? Number(wanted.trim().replace("#", "")) : null;
    const fits = (latent) => any || index.peaks[latent].some(isWanted) || index.promoted[latent].some(isWanted);
    const shown = [];
    for (let latent = 0; latent < index.n_latents; latent++) {
      if (latent !== number && !(hideDead && index.n_fires[latent] === 0) && fits(latent)) shown.push(latent);
    }
    order(shown, sort);
    return number !== null && number < index.n_latents ? [number, ...shown] : shown;
  }

  function order(latents, sort) {
    const column = { density: "n_fires", max: "max" }[sort.replace("-", "")];
    if (!column) return;
    const sign = sort.startsWith("-") ? 1 : -1;
    const values = index[column];
    latents.sort((a, b) => sign * ((values[a] ?? 0) - (values[b] ?? 0)) || a - b);
  }

  /** Show what fits; returns how many there are. */
  function update(wish) {
    found = find(wish);
    rows.style.height = `${found.length * ROW}px`;
    for (const row of drawn.values()) row.remove();
    drawn.clear();
    scroller.scrollTop = 0;
    draw();
    if (current !== null) reveal();
    return found.length;
  }

  /** Put the rows in sight into the document and take the others out. */
  function draw() {
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - MARGIN);
    const last = Math.min(found.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + MARGIN);
    for (const [place, row] of drawn) {
      if ((place < first || place >= last) && !row.contains(document.activeElement)) {
        row.remove();
        drawn.delete(place);
      }
    }
    for (let place = first; place < last; place++) {
      if (drawn.has(place)) continue;
      const row = describe(found[place], place);
      drawn.set(place, row);
      const after = [...drawn.keys()].filter((other) => other > place).sort((a, b) => a - b)[0];
      rows.insertBefore(row, drawn.get(after) ?? null);
    }
  }

  function describe(latent, place) {
    const dead = index.n_fires[latent] === 0;
    const peak = index.peaks[latent][0];
    const promoted = index.promoted[latent][0];
    const words = element("span", { class: "words" });
    if (dead) words.append(element("span", { class: "muted" }, "never fired"));
    if (peak !== undefined) words.append(tokens.chip(table.texts[peak]));
    if (promoted !== undefined && !dead) {
      words.append(element("span", { class: "to" }, "→"), tokens.chip(table.texts[promoted]));
    }
    const row = element(
      "a",
      { class: dead ? "row dead" : "row", href: `#${latent}`, style: { top: `${place * ROW}px` } },
      element("span", { class: "number" }, String(latent)),
      words,
      element("span", { class: "density" }, dead ? "–" : numbers.percent(index.density[latent]),
        element("span", { class: "meter", style: { "--level": `${100 * level(latent)}%` } })),
    );
    if (latent === current) row.setAttribute("aria-current", "true");
    return row;
  }

  /** Density between once in the text and everywhere, on a log scale from 0 to 1. */
  function level(latent) {
    const fires = index.n_fires[latent];
    return fires > 1 ? Math.log(fires) / Math.log(Math.max(2, index.n_tokens)) : 0;
  }

  /** Mark a latent as the one that is shown, and bring it into sight. */
  function select(latent) {
    current = latent;
    for (const row of rows.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
    reveal();
  }

  function reveal() {
    const place = found.indexOf(current);
    if (place < 0) return;
    const top = place * ROW;
    const height = scroller.clientHeight;
    if (top < scroller.scrollTop) scroller.scrollTop = Math.max(0, top - ROW);
    else if (top + ROW > scroller.scrollTop + height) scroller.scrollTop = top - height + 2 * ROW;
    draw();
    drawn.get(place)?.setAttribute("aria-current", "true");
  }

  /** The latent so many places further down the list; null at its ends. */
  function neighbour(latent, by) {
    const place = found.indexOf(latent);
    if (place < 0) return found[0] ?? null;
    return found[place + by] ?? null;
  }

  /** Any latent of the list. */
  function any() {
    return found[Math.floor(Math.random() * found.length)] ?? null;
  }

  scroller.addEventListener("scroll", draw, { passive: true });
  new ResizeObserver(() => (current === null ? draw() : reveal())).observe(scroller);
  return { update, select, neighbour, any, first: () => found[0] ?? null };
})();

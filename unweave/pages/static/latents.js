// Ties the browser of latents together: the address is the state, and keys, buttons and list all change the address.
"use strict";

(() => {
  const { numbers, latentList, latentView } = unweave;
  const index = unweave.get("latents");
  const [query, sort, hideDead] = ["query", "sort", "hide-dead"].map((id) => document.getElementById(id));
  const title = document.title;
  let shown = null;

  /** The address: #123, or #123&q=self&sort=density&dead=show. */
  function read() {
    const [number, ...rest] = location.hash.slice(1).split("&");
    const wish = new URLSearchParams(rest.join("&"));
    const latent = /^\d+$/.test(number) ? Number(number) : null;
    const hideDead = wish.get("dead") !== "show";
    return { latent, query: wish.get("q") ?? "", sort: wish.get("sort") ?? "number", hideDead };
  }

  function address(latent) {
    const wish = new URLSearchParams();
    if (query.value !== "") wish.set("q", query.value);
    if (sort.value !== "number") wish.set("sort", sort.value);
    if (!hideDead.checked) wish.set("dead", "show");
    return `#${[latent ?? "", ...wish.toString().split("&").filter(Boolean)].join("&")}`;
  }

  /** Show a latent, with a step in the browser's history. */
  function go(latent) {
    if (latent !== null) location.hash = address(latent);
  }

  async function showLatent(latent) {
    if (latent === shown) return;
    shown = latent;
    latentList.select(latent);
    document.title = `Latent ${latent} · ${title}`;
    document.getElementById("announcement").textContent = `Latent ${latent}`;
    document.body.classList.remove("listing");
    markEnds();
    unweave.tokens.hide();
    try {
      const chunk = await unweave.load(`latents-${String(Math.floor(latent / index.chunk)).padStart(4, "0")}`);
      if (latent === shown) latentView.show(latent, chunk.latents[latent - chunk.first]);
    } catch (error) {
      if (latent === shown) latentView.fail(latent, error.message);
    }
    document.getElementById("latent").scrollTop = 0;
  }

  function filter() {
    const count = latentList.update({ query: query.value, sort: sort.value, hideDead: hideDead.checked });
    const found = count === 0 ? "No latent fits, of" : `${numbers.count(count)} of`;
    document.getElementById("count").textContent = `${found} ${numbers.count(index.n_latents)} latents`;
    if (shown !== null) markEnds();
  }

  /** The list has a first and a last latent. */
  function markEnds() {
    document.getElementById("previous").disabled = latentList.neighbour(shown, -1) === null;
    document.getElementById("next").disabled = latentList.neighbour(shown, 1) === null;
  }

  /** Follow the address, from wherever it was changed. */
  function follow() {
    const wish = read();
    const bare = !location.hash.includes("&");
    if (!bare && (wish.query !== query.value || wish.sort !== sort.value || wish.hideDead !== hideDead.checked)) {
      [query.value, sort.value, hideDead.checked] = [wish.query, wish.sort, wish.hideDead];
      filter();
    }
    if (wish.latent !== null && wish.latent >= index.n_latents) {
      latentView.fail(wish.latent, `This coder has ${numbers.count(index.n_latents)} latents, numbered from 0.`);
      shown = null;
    } else {
      const latent = wish.latent ?? shown ?? latentList.first();
      if (latent !== null) showLatent(latent);
      history.replaceState(null, "", address(latent));
    }
  }

  function changed() {
    filter();
    history.replaceState(null, "", address(shown));
  }

  const step = (by) => go(latentList.neighbour(shown, by));
  const ACTIONS = {
    j: () => step(1), ArrowRight: () => step(1),
    k: () => step(-1), ArrowLeft: () => step(-1),
    r: () => go(latentList.any()),
    "/": () => {
      document.body.classList.add("listing");
      query.select();
    },
  };

  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof Element && event.target.closest("input[type=search], select");
    if (typing || event.altKey || event.ctrlKey || event.metaKey || !Object.hasOwn(ACTIONS, event.key)) return;
    event.preventDefault();
    ACTIONS[event.key]();
  });
  query.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault(); // the browser would empty the field
    query.blur();
  });
  document.getElementById("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    go(latentList.first());
  });
  query.addEventListener("input", changed);
  sort.addEventListener("change", changed);
  hideDead.addEventListener("change", changed);
  document.getElementById("list").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    document.body.classList.remove("listing");
    go(Number(row.querySelector(".number").textContent));
  });
  document.getElementById("previous").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  document.getElementById("random").addEventListener("click", () => go(latentList.any()));
  document.getElementById("show-list").addEventListener("click", () => document.body.classList.toggle("listing"));
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("latent").focus();
  });

  window.addEventListener("hashchange", follow);
  const start = read();
  [query.value, sort.value, hideDead.checked] = [start.query, start.sort, start.hideDead];
  if (sort.value === "") sort.value = "number";
  filter();
  follow();
})();

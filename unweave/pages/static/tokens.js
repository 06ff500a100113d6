// Shows tokens: white space made visible, activation as background, one tooltip for all with the numbers.
"use strict";

unweave.tokens = (() => {
  const { element, numbers } = unweave;
  const GLYPHS = { "\n": "↵", "\t": "⇥", "\r": "␍" };
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\u00a0\u034f\u115f\u1160\u3164\ufe00-\ufe0f]/u;
  const LONGEST = 48;
  let tooltip = null;
  let described = null;

  /** Write a token into a node, with a glyph for whatever cannot be seen; in a chip also for spaces at its ends. */
  function write(node, text, isChip = false) {
    const blank = /^[ \t\r\n]+$/.test(text);
    const signs = [...text];
    const long = signs.length > LONGEST && !blank;
    let plain = "";
    const flush = () => {
      if (plain) node.append(plain);
      plain = "";
    };
    const shown = long ? signs.slice(0, LONGEST - 1) : signs;
    shown.forEach((sign, i) => {
      const atEnd = i === 0 || i === signs.length - 1;
      const glyph = sign === " " ? (blank || (isChip && atEnd) ? "·" : null) : glyphOf(sign);
      if (glyph === null) {
        plain += sign;
      } else {
        flush();
        node.append(element("span", { class: "glyph" }, glyph));
        if (sign === "\n" && !isChip) node.append(element("br"));
      }
    });
    flush();
    if (long) node.append(element("span", { class: "glyph" }, "…"));
    if (text === "") node.append(element("span", { class: "glyph" }, "∅"));
    return node;
  }

  function glyphOf(sign) {
    if (sign.search(UNSEEN) < 0) return null;
    return GLYPHS[sign] ?? `‹${sign.codePointAt(0).toString(16)}›`;
  }

  /** A token on its own, for lists and headings. */
  function chip(text) {
    return write(element("span", { class: "chip", title: JSON.stringify(text) }), text, true);
  }

  /**
   * The tokens of an example. Only one of them is a stop of the Tab key, and the arrow keys move from there.
   * @param example tokens (places in the table), activations, peak, document
   * @param strongest the activation that has the full colour
   */
  function strip(example, table, strongest, label) {
    const spans = example.tokens.map((place, i) => {
      const text = table.texts[place];
      const activation = example.activations[i] ?? 0;
      const heat = strongest > 0 ? Math.max(0, Math.min(1, activation / strongest)) : 0;
      const kind = `token${activation > 0 ? " fires" : ""}${i === example.peak ? " peak" : ""}`;
      const span = element("span", { class: kind, tabindex: i === example.peak ? "0" : "-1" });
      write(span, text);
      if (activation > 0) span.style.setProperty("--heat", `${(100 * heat).toFixed(1)}%`);
      span.about = { text, id: table.ids[place], activation, share: heat };
      return span;
    });
    return element("div", { class: "strip", role: "group", "aria-label": label }, ...spans);
  }

  function show(span) {
    const { text, id, activation, share } = span.about;
    tooltip ??= document.body.appendChild(element("div", { class: "tooltip", role: "tooltip", id: "tooltip" }));
    const remark = activation > 0 ? `${Math.round(100 * share)} % of the strongest · token ${id}` : `token ${id}`;
    tooltip.replaceChildren(
      element("code", {}, shorten(JSON.stringify(text))),
      element("strong", {}, activation > 0 ? numbers.value(activation) : "does not fire"),
      element("span", {}, remark),
    );
    tooltip.hidden = false;
    described?.removeAttribute("aria-describedby");
    described = span;
    span.setAttribute("aria-describedby", "tooltip");
    place(span.getClientRects()[0] ?? span.getBoundingClientRect());
  }

  function shorten(text) {
    return text.length > 120 ? `${text.slice(0, 119)}…` : text;
  }

  function place(box) {
    const { width, height } = tooltip.getBoundingClientRect();
    const rightmost = document.documentElement.clientWidth - width - 8;
    const left = Math.max(8, Math.min(box.left + box.width / 2 - width / 2, rightmost));
    const top = box.top - height - 8 > 0 ? box.top - height - 8 : box.bottom + 8;
    tooltip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top)}px)`;
  }

  function hide() {
    if (tooltip) tooltip.hidden = true;
    described?.removeAttribute("aria-describedby");
    described = null;
  }

  function tokenOf(event) {
    return event.target instanceof Element ? event.target.closest(".token") : null;
  }

  function step(event) {
    if (event.key === "Escape") hide();
    const span = tokenOf(event);
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!span || !by || event.altKey || event.ctrlKey || event.metaKey) return;
    const all = [...span.parentElement.querySelectorAll(".token")];
    all[all.indexOf(span) + by]?.focus();
    event.preventDefault();
    event.stopPropagation();
  }

  document.addEventListener("pointerover", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  document.addEventListener("focusin", (event) => (tokenOf(event) ? show(tokenOf(event)) : hide()));
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  document.addEventListener("keydown", step, { capture: true });

  return { chip, strip, hide };
})();

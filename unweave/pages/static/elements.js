// Builds elements from names, attributes and text, and writes numbers as people read them.
"use strict";

/** An element; strings among the children become text, never markup. */
unweave.element = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) continue;
    if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
};

unweave.numbers = {
  /** Whole numbers with separators. */
  count: (value) => value.toLocaleString("en-US"),

  /** A share of tokens: 12 %, 0.42 %, 0.0004 %. */
  percent: (share) => {
    if (share === null) return "–";
    const percent = 100 * share;
    if (percent === 0) return "0 %";
    const digits = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(percent))));
    return `${Number(percent.toFixed(digits))} %`;
  },

  /** An activation or weight, to three digits. */
  value: (number) => {
    if (number === null) return "–";
    if (Math.abs(number) >= 1000) return Math.round(number).toLocaleString("en-US");
    return number === 0 ? "0" : number.toPrecision(3);
  },
};

// Builds elements from names, attributes and text. Strings become text nodes: nothing is ever read as markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. Attributes that are null or false are left out; `style` is an object of properties, `on` of listeners.
 * Children that are null or false are left out, arrays are opened.
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for drawings. */
export function drawing(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, text] of Object.entries(value)) node.style.setProperty(key, text);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  const kept = children.flat(3).filter((child) => child !== null && child !== undefined && child !== false);
  node.append(...kept);
  return node;
}

/** A button; `action` is called on a click. */
export function button(text, action, attributes = {}) {
  return element("button", { type: "button", on: { click: action }, ...attributes }, text);
}

/** A message in a box: `kind` is "", "problem" or "good". */
export function notice(text, kind = "") {
  return element("p", { class: `notice ${kind}`.trim(), role: kind === "problem" ? "alert" : "status" }, withCode(text));
}

/** A text whose parts between backticks are commands. */
export function withCode(text) {
  return text.split("`").map((part, i) => (i % 2 ? element("code", {}, part) : part));
}

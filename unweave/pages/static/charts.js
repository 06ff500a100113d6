// Charts: small histograms as drawings of our own, and Plotly, loaded when first needed, in the page's colours.

import { drawing, element } from "./dom.js";
import { count } from "./numbers.js";

const CONFIG = {
  displayModeBar: false,
  displaylogo: false,
  responsive: true,
  showTips: false,
  plotlyServerURL: "",
  showSendToCloud: false,
  showEditInChartStudio: false,
};
const WIDTH = 640;

/**
 * A histogram of bars of equal width, with ticks below.
 * @param {number[]} counts
 * @param {{height?: number, label: string, ticks: [number, string][], tip: (i: number) => string, kind?: (i: number) => string, root?: boolean}} options
 *   ticks: place between 0 and 1, and text; tip: what a bar says; kind: a class of a bar;
 *   root: heights by the square root, so that small bars can be seen
 */
export function histogram(counts, { height = 120, label, ticks, tip, kind = () => "", root = false }) {
  const most = Math.max(1, ...counts);
  const width = WIDTH / counts.length;
  const share = (n) => (root ? Math.sqrt(n / most) : n / most);
  const bars = counts.map((n, i) => {
    const tall = n === 0 ? 0 : Math.max(2, share(n) * height);
    const gap = Math.min(2, width * 0.15);
    const bar = { class: `bar ${kind(i)}`.trim(), x: i * width + gap / 2, width: width - gap, y: height - tall, height: tall, rx: 1.5 };
    const catcher = { class: "catcher", x: i * width, width, y: 0, height };
    return drawing("g", {}, drawing("rect", bar), drawing("rect", catcher, drawing("title", {}, tip(i))));
  });
  const box = { class: "bars", viewBox: `0 0 ${WIDTH} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  const marks = ticks.map(([at, text]) => element("span", { style: { "--at": `${100 * at}%` }, class: at < 0.04 ? "first" : at > 0.96 ? "last" : "" }, text));
  return element(
    "div",
    { class: "histogram", style: { "--tall": `${height}px` } },
    drawing("svg", box, bars),
    element("div", { class: "ticks", "aria-hidden": "true" }, marks),
  );
}

/** A histogram of {low, high, counts}, whose ticks are its two ends and 0 where that lies between. */
export function rangeHistogram({ low, high, counts }, { label, write, noun, height = 96, root = true, kind = undefined }) {
  const at = (i) => low + ((high - low) * i) / counts.length;
  const ticks = [[0, write(low)], [1, write(high)]];
  const zero = -low / (high - low);
  if (zero > 0.1 && zero < 0.9) ticks.push([zero, "0"]);
  return histogram(counts, {
    height, label, ticks, root, kind,
    tip: (i) => `${count(counts[i])} ${noun} from ${write(at(i))} to ${write(at(i + 1))}`,
  });
}

let plotly = null;

/** Promise of Plotly, from where this page says that it is. */
export function loadPlotly() {
  plotly ??= new Promise((resolve, reject) => {
    const address = document.querySelector("meta[name=plotly]").content;
    const fail = () => reject(new Error("Plotly's script could not be read"));
    const script = element("script", { src: address, on: { load: () => resolve(globalThis.Plotly), error: fail } });
    document.head.append(script);
  });
  return plotly;
}

/** The page's colours as they are now: ink, muted, line, surface, accent, warm, cool, good, problem; and its font. */
export function colours() {
  const probe = document.body.appendChild(element("span", { hidden: true }));
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const names = ["ink", "muted", "line", "surface", "accent", "warm", "cool", "good", "problem"];
  const found = Object.fromEntries(names.map((name) => [name, read(name)]));
  probe.remove();
  return { ...found, font: getComputedStyle(document.body).fontFamily };
}

/** What all of Plotly's charts share. */
export function layout(colour, more = {}) {
  const font = { family: colour.font, color: colour.ink, size: 12 };
  const axis = { gridcolor: colour.line, zeroline: false, fixedrange: true, ticklen: 4, tickcolor: "rgba(0,0,0,0)" };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: colour.font, size: 11, color: colour.muted },
    hoverlabel: { bgcolor: colour.surface, bordercolor: colour.line, font },
    margin: { l: 52, r: 12, t: 8, b: 44 },
    showlegend: false,
    dragmode: false,
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}

/** A text for Plotly, which reads markup. */
export function plain(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}

/** Where the names of lines stand, above a chart. */
export function legendAbove(colour) {
  return { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour.ink } };
}

/**
 * A chart of Plotly's that is drawn again when the colours change.
 * @param {string} label for those who cannot see it
 * @param {(colour: object) => {data: object[], layout?: object, config?: object}} make
 */
export function chart(label, make, attributes = {}) {
  const box = element("div", { class: "plot", role: "img", "aria-label": label, ...attributes });
  const draw = async () => {
    const Plotly = await loadPlotly();
    if (!box.isConnected) return;
    const colour = colours();
    const made = make(colour);
    await Plotly.react(box, made.data, layout(colour, made.layout), { ...CONFIG, ...made.config });
    box.dispatchEvent(new Event("drawn"));
  };
  const again = () => (box.isConnected ? draw() : window.removeEventListener("unweave-theme", again));
  window.addEventListener("unweave-theme", again);
  requestAnimationFrame(() => draw().catch((error) => box.replaceChildren(error.message)));
  return box;
}

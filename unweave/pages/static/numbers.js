// Writes numbers as people read them.

/** Whole numbers with separators. */
export function count(value) {
  return value === null || value === undefined ? "–" : value.toLocaleString("en-US");
}

/** A share: 12 %, 0.42 %, 0.0004 %. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value === 0) return "0 %";
  const digits = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(Math.abs(value)))));
  return `${Number(value.toFixed(digits))} %`;
}

/** An activation, a weight or another figure, to three digits. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  const text = size < 0.001 ? value.toExponential(1) : value.toPrecision(3);
  return text.replace("-", "−");
}

/** A number between -1 and 1, to three decimals. */
export function ratio(value) {
  return value === null || value === undefined ? "–" : value.toFixed(3).replace("-", "−");
}

/** With its sign. */
export function signed(value) {
  return value > 0 ? `+${figure(value)}` : figure(value);
}

/** 1 latent, 2 latents. */
export function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** A moment, in the reader's own time zone: 21 Nov 2026, 22:13. */
export function moment(time) {
  const date = new Date(typeof time === "number" ? 1000 * time : time);
  const day = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return `${day}, ${date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

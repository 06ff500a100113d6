// The first page's charts.
"use strict";

(() => {
  const { element, numbers } = unweave;
  const { CONFIG, layout, drawn } = unweave.charts;
  const { curves, densities, tokens_by_l0 } = unweave.get("report");
  function written(kind, value) {
    if (kind === "percent") return numbers.percent(value);
    return kind === "share" ? value.toFixed(3) : numbers.value(value);
  }

  /** A log axis where a loss falls by far; explained variance from 0 where its start lies far below. */
  function range(kind, values) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    if (kind === "loss" && low > 0 && high / low > 30) return { type: "log" };
    if (kind === "share") return { range: [low < -0.2 ? -0.05 : Math.min(0, low), Math.max(1, high) + 0.02] };
    return low < 0 ? {} : { range: [0, 1.06 * high || 0.1] };
  }

  /** One small chart; returns how to draw it. */
  function panel({ name, title, kind, values }) {
    const known = values.filter((value) => value !== null);
    const axis = range(kind, known);
    const [start, end] = [known[0], known.at(-1)].map((value) => written(kind, value));
    const label = `${title}: ${start} at the first logged step, ${end} at the last`;
    const plot = element("div", { class: "plot", role: "img", "aria-label": label });
    const heading = element(
      "figcaption",
      {},
      element("span", {}, title + (axis.type === "log" ? ", log scale" : "")),
      element("strong", {}, end),
    );
    const figure = element("figure", { class: "chart panel", "data-name": name }, heading, plot);
    document.getElementById("curves").append(figure);
    return (colour) => {
      const line = { color: kind === "loss" ? colour.warm : colour.accent, width: 1.75 };
      const mode = known.length > 1 ? "lines" : "markers";
      const trace = { x: curves.rows, y: values, mode, line, marker: { color: line.color }, connectgaps: true };
      trace.hovertemplate = `%{y:${kind === "percent" ? ".2~%" : ".4~g"}} at %{x:.3~s} rows<extra></extra>`;
      const xaxis = { tickformat: "~s", nticks: 5, showgrid: false };
      const yaxis = { ...axis, nticks: 5, tickformat: kind === "percent" ? ".1~%" : "~g" };
      const margin = { l: 44, r: 8, t: 6, b: 24 };
      Plotly.react(plot, [trace], layout(colour, { margin, xaxis, yaxis }), CONFIG);
    };
  }

  /** The histogram of densities; returns how to draw it. */
  function histogram() {
    const plot = document.getElementById("density-plot");
    const { starts, counts, bin, n_latents, n_dead, n_dense } = densities;
    const label = `Histogram of the densities of ${n_latents - n_dead} live latents; ${n_dead} never fired`;
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `${label}, ${n_dense} are dense`);
    const ticks = [-7, -6, -5, -4, -3, -2, -1, 0];
    const share = (exponent) => numbers.percent(10 ** exponent);
    const dense = starts.map((start) => start >= -1 - 1e-9);
    return (colour) => {
      const bars = {
        type: "bar",
        x: starts.map((start) => start + bin / 2),
        y: counts,
        width: bin * 0.9,
        marker: {
          color: dense.map((is) => (is ? colour.warm : colour.accent)),
          pattern: { shape: dense.map((is) => (is ? "/" : "")), size: 5, solidity: 0.4 },
        },
        customdata: starts.map((start) => `${share(start)} to ${share(start + bin)} of tokens`),
        hovertemplate: "%{y:,} latents fire on<br>%{customdata}<extra></extra>",
      };
      const title = { text: "share of tokens on which a latent fires, log scale", standoff: 8 };
      const xaxis = { tickvals: ticks, ticktext: ticks.map(share), showgrid: false, title };
      xaxis.range = [Math.min(starts[0] ?? -5, -3) - bin, Math.max((starts.at(-1) ?? -1) + bin, 0) + bin / 2];
      const yaxis = { title: { text: "latents", standoff: 8 }, rangemode: "tozero", nticks: 5 };
      const margin = { l: 52, r: 12, t: 8, b: 46 };
      Plotly.react(plot, [bars], layout(colour, { margin, xaxis, yaxis, bargap: 0 }), CONFIG);
    };
  }

  /** The histogram of tokens by active latents; returns how to draw it. */
  function sparsity({ start, step, counts }) {
    const plot = document.getElementById("l0-plot");
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `Tokens by active latents, from ${start} to ${start + step * counts.length - 1}`);
    const ends = counts.map((_, i) => [start + i * step, start + (i + 1) * step - 1]);
    return (colour) => {
      const bars = { type: "bar", x: ends.map(([low, high]) => (low + high) / 2), y: counts, width: step * 0.9, marker: { color: colour.accent } };
      bars.customdata = ends.map(([low, high]) => (low === high ? `${low}` : `${low} to ${high}`));
      bars.hovertemplate = "%{y:,} tokens with<br>%{customdata} active latents<extra></extra>";
      const xaxis = { showgrid: false, title: { text: "active latents", standoff: 8 } };
      const yaxis = { title: { text: "tokens", standoff: 8 }, rangemode: "tozero", nticks: 5 };
      Plotly.react(plot, [bars], layout(colour, { margin: { l: 52, r: 12, t: 8, b: 46 }, xaxis, yaxis, bargap: 0 }), CONFIG);
    };
  }

  const note = document.getElementById("curves-note");
  note.textContent = curves.rows.length === 0 ? "No training steps were logged."
    : `Against the rows seen, ${numbers.count(curves.rows.at(-1))} in all, on the batch of each logged step`
      + (curves.stride > 1 ? `; every ${curves.stride}th is drawn.` : ".");
  const drawable = curves.panels.filter(({ values }) => values.some((value) => value !== null));
  const charts = [histogram(), ...drawable.map(panel)];
  if (tokens_by_l0.counts.length) charts.push(sparsity(tokens_by_l0));
  else document.getElementById("l0-figure")?.remove();
  drawn(charts);
})();

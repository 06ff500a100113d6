// The charts of a sweep: each figure against L0, a line for each architecture at each site.
"use strict";

(() => {
  const { element } = unweave;
  const { CONFIG, layout, drawn } = unweave.charts;
  const { lines, figures } = unweave.get("sweep");
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];

  /** Colours that are told apart without red against green, then the same with other symbols. */
  function look(index, colour) {
    const hues = [colour.accent, colour.warm, "#7a6bd1", "#3d9970", "#b0609f", "#8c8c8c"];
    return { color: hues[index % hues.length], symbol: SYMBOLS[index % SYMBOLS.length] };
  }

  /** Where coders are on the axis, each at least a tenth above the one before. */
  function ticks() {
    const values = lines.flatMap((line) => line.l0.mean).filter((value) => value > 0).sort((a, b) => a - b);
    return values.map(Math.round).filter((value, index, all) => index === 0 || value > 1.1 * all[index - 1]);
  }

  /** One chart; returns how to draw it. */
  function chart({ name, title }) {
    const label = `${title} against L0: ${lines.map((line) => line.name).join(", ")}`;
    const plot = element("div", { class: "plot", role: "img", "aria-label": label });
    document.getElementById("charts").append(
      element("figure", { class: "chart pareto", "data-name": name }, element("figcaption", {}, title), plot),
    );
    return (colour) => {
      const traces = lines.map((line, index) => {
        const { color, symbol } = look(index, colour);
        const bars = (errors) => ({ type: "data", array: errors, visible: errors.some((e) => e > 0), thickness: 1.25, width: 3 });
        return {
          name: line.name,
          x: line.l0.mean,
          y: line[name].mean,
          error_x: bars(line.l0.error),
          error_y: bars(line[name].error),
          text: line.settings,
          mode: "lines+markers",
          line: { color, width: 1.5 },
          marker: { color, symbol, size: 8 },
          hovertemplate: "<b>%{text}</b><br>L0 %{x:.4~g}<br>" + title + " %{y:.4~g}<extra></extra>",
        };
      });
      const title_x = { text: "L0, active latents per token (log scale)", standoff: 8 };
      const xaxis = { type: "log", title: title_x, showgrid: false, tickvals: ticks(), tickformat: "~g" };
      const yaxis = { tickformat: "~g", nticks: 7 };
      const margin = { l: 56, r: 12, t: 8, b: 46 };
      const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour.ink } };
      Plotly.react(plot, traces, layout(colour, { margin, xaxis, yaxis, showlegend: lines.length > 1, legend }), CONFIG);
    };
  }

  unweave.sweep = { look };
  drawn(figures.map(chart));
})();

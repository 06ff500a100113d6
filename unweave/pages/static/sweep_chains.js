// Charts of what coders of a sweep say together: laws over widths, and latents through layers.
"use strict";

(() => {
  const { numbers } = unweave;
  const { CONFIG, layout, drawn } = unweave.charts;
  const { look } = unweave.sweep;
  const { laws, tracks } = unweave.get("sweep").chains;

  /** Measured losses as points and the law as a line for each sparsity; returns how to draw them. */
  function law({ settings, curves }, number) {
    const plot = document.getElementById(`law-${number}`);
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", `Loss against latents: ${Object.keys(settings).join(", ")}`);
    return (colour) => {
      const traces = Object.entries(settings).flatMap(([name, { n, loss, l0 }], index) => {
        const { color, symbol } = look(index, colour);
        const hovertemplate = `<b>${name}</b><br>%{x:,} latents, L0 %{customdata:.3~g}<br>loss %{y:.4~g}<extra></extra>`;
        return [
          { x: curves[name].n, y: curves[name].loss, mode: "lines", line: { color, width: 1.5 }, hoverinfo: "skip", showlegend: false },
          { name, x: n, y: loss, customdata: l0, mode: "markers", marker: { color, symbol, size: 9 }, hovertemplate },
        ];
      });
      const widths = [...new Set(Object.values(settings).flatMap(({ n }) => n))].sort((a, b) => a - b);
      const xaxis = { type: "log", tickvals: widths, ticktext: widths.map(numbers.count), showgrid: false, title: { text: "latents (log scale)", standoff: 8 } };
      const yaxis = { type: "log", tickformat: ".2~g", nticks: 6, title: { text: "unexplained variance (log scale)", standoff: 10 } };
      const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour.ink } };
      Plotly.react(plot, traces, layout(colour, { margin: { l: 62, r: 12, t: 8, b: 46 }, xaxis, yaxis, showlegend: true, legend }), CONFIG);
    };
  }

  /** The share of latents that is found up to each layer, a line for each chain; returns how to draw it. */
  function followed() {
    const plot = document.getElementById("tracks");
    plot.setAttribute("role", "img");
    plot.setAttribute("aria-label", tracks.map(({ name, followed }) => `${name}: ${followed.map(numbers.percent).join(", ")}`).join("; "));
    return (colour) => {
      const traces = tracks.map(({ name, sites, followed }, index) => {
        const { color, symbol } = look(index, colour);
        return { name, x: sites, y: followed, mode: "lines+markers", line: { color, width: 1.75 }, marker: { color, symbol, size: 8 }, hovertemplate: `%{x}<br>%{y:.1%} still found<extra>${name}</extra>` };
      });
      const yaxis = { tickformat: ".0%", range: [0, 1.04], nticks: 6 };
      const legend = { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: colour.ink } };
      Plotly.react(plot, traces, layout(colour, { margin: { l: 46, r: 24, t: 8, b: 30 }, xaxis: { showgrid: false }, yaxis, showlegend: tracks.length > 1, legend }), CONFIG);
    };
  }

  drawn([...laws.map(law), ...(tracks.length ? [followed()] : [])]);
})();

// Charts by Plotly in the page's own colours, drawn again when these change.
"use strict";

unweave.charts = (() => {
  const CONFIG = {
    displayModeBar: false,
    displaylogo: false,
    responsive: true,
    showTips: false,
    plotlyServerURL: "",
    showSendToCloud: false,
    showEditInChartStudio: false,
  };

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    return {
      ink: read("--ink"), muted: read("--muted"), line: read("--line"), surface: read("--surface"),
      accent: read("--accent"), warm: read("--warm"), font: style.getPropertyValue("--sans").trim(),
    };
  }

  /** What all charts share. */
  function layout(colour, more) {
    const font = { family: colour.font, color: colour.ink, size: 12 };
    const axis = { gridcolor: colour.line, zeroline: false, fixedrange: true, ticklen: 4, tickcolor: "rgba(0,0,0,0)" };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colour.font, size: 11, color: colour.muted },
      hoverlabel: { bgcolor: colour.surface, bordercolor: colour.line, font },
      showlegend: false,
      dragmode: false,
      ...more,
      xaxis: { ...axis, ...more.xaxis },
      yaxis: { ...axis, ...more.yaxis },
    };
  }

  /** Draw charts, each a function of the colours, now and whenever the colours change. */
  function drawn(charts) {
    const draw = () => {
      const colour = colours();
      for (const chart of charts) chart(colour);
    };
    draw();
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  }

  return { CONFIG, layout, drawn };
})();

"use strict";
// Mean test scores over the numbers of parameters.

panels.sizes = ({metrics}, view) => {
  const whole = document.createElement("div");
  const root = document.createElement("div");
  const groups = new Map(metrics.flatMap(({points}) => points.map((point) => [`${point.group} ${point.style}`, {label: point.group, style: point.style}])));
  whole.append(legend([...groups.values()]), root);
  root.className = "plots";
  const columns = Math.min(metrics.length, view.narrow ? 1 : 2);
  root.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  for (const {label, points} of metrics) {
    const sizes = points.map((point) => point.parameters);
    const wide = Math.max(...sizes) > 10 * Math.min(...sizes);
    const shown = points.map((point) => ({
      ...point, fill: color(point.style),
      words: `${point.group}\n${point.parameters.toLocaleString("en")} parameters\ntest ${point.test}` + (point.tasks > 1 ? `, mean of ${point.tasks} tasks` : ""),
    }));
    root.append(Plot.plot({
      ...common(view),
      ariaLabel: `Test score over parameters: ${label}`,
      width: Math.min(620, Math.floor((view.width - 20 * (columns - 1)) / columns)), height: 240, marginTop: 24, marginBottom: 38, marginLeft: 46, marginRight: 30,
      x: wide ? {type: "log"} : {domain: [0, 1.1 * Math.max(...sizes)]},
      y: {nice: true, zero: false},
      marks: [
        Plot.gridY({ticks: 5, stroke: "var(--rule)", strokeOpacity: 0.6}),
        Plot.axisY({ticks: 5, label, tickSize: 0, labelArrow: "none"}),
        Plot.axisX(wide ? {ticks: 3, tickFormat: compact, label: "parameters", labelAnchor: "center", labelArrow: "none"}
          : {ticks: 4, tickFormat: compact, label: "parameters", labelAnchor: "center", labelArrow: "none"}),
        Plot.dot(shown, {x: "parameters", y: "test", r: 5, fill: "fill"}),
        Plot.tip(shown, Plot.pointer({...tipText, x: "parameters", y: "test", title: "words", ...tipText})),
      ],
    }));
  }
  return whole;
};

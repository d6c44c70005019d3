"use strict";
// Bars of gains over single-task runs, with intervals; the mean over tasks stands apart.

panels.gains = ({groups, bars}, view) => {
  const root = document.createElement("div");
  const ends = bars.flatMap((bar) => [bar.gain, ...(bar.interval ?? [])]);
  const [low, high] = [Math.min(0, ...ends), Math.max(0, ...ends)];
  const pad = 0.05 * (high - low || 1);
  const short = view.narrow ? 16 : 30;
  const left = Math.min(view.width * 0.4, 14 + 6.6 * Math.max(...bars.map((bar) => Math.min(short, bar.task.length))));
  for (const [style, group] of groups.entries()) {
    const own = bars.filter((bar) => bar.group === group).map((bar, place) => ({
      ...bar, place, low: bar.interval?.[0], high: bar.interval?.[1],
      words: `${group}\n${bar.task}\n${signed(bar.gain)} %`
        + (bar.interval ? `, 95 % interval ${signed(bar.interval[0])} to ${signed(bar.interval[1])}, ${bar.count} seeds` : ", a single run"),
    }));
    if (groups.length > 1) {
      const title = document.createElement("h4");
      title.textContent = group;
      root.append(title);
    }
    root.append(Plot.plot({
      ...common(view),
      ariaLabel: `Gain over single-task runs of ${group}`,
      width: Math.min(view.width, 760), height: 42 + 24 * own.length, marginLeft: left, marginTop: 4, marginBottom: 36, marginRight: 58,
      y: {type: "band", domain: own.keys(), padding: 0.25},
      x: {domain: [low - pad, high + pad]},
      marks: [
        Plot.gridX({ticks: 5, stroke: "var(--rule)", strokeOpacity: 0.6}),
        Plot.axisX({ticks: 5, label: "gain (%)", labelAnchor: "center", labelArrow: "none"}),
        Plot.axisY({tickSize: 0, label: null, tickFormat: (place) => shorten(own[place].task, short)}),
        Plot.barX(own, {x1: 0, x2: "gain", y: "place", fill: color(style), fillOpacity: (bar) => (bar.total ? 1 : 0.55)}),
        Plot.ruleX([0], {stroke: "var(--ink)"}),
        Plot.link(own.filter((bar) => bar.interval), {x1: "low", x2: "high", y1: "place", y2: "place", stroke: "var(--ink)", strokeWidth: 1.6}),
        Plot.text(own, {y: "place", frameAnchor: "right", dx: 54, textAnchor: "end", text: (bar) => `${signed(bar.gain)}`,
          fill: "var(--ink)", fontWeight: (bar) => (bar.total ? 600 : 400)}),
        Plot.tip(own, Plot.pointer({...tipText, x: "gain", y: "place", title: "words", ...tipText})),
      ],
    }));
  }
  return root;
};

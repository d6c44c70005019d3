"use strict";
// Training, validation and test scores on one line for each task and group of seeds.

panels.splits = ({metrics}, view) => {
  const root = document.createElement("div");
  const groups = new Set(metrics.flatMap(({rows}) => rows.map((row) => row.group)));
  const tasks = new Set(metrics.flatMap(({rows}) => rows.map((row) => row.task)));
  const names = withoutKinds([...tasks]);
  const plain = new Map([...tasks].map((task, k) => [task, names[k]]));
  const both = groups.size > 1 && tasks.size > 1; // then a task is a heading of its rows
  const name = (row) => (groups.size < 2 ? plain.get(row.task) : row.group);
  const title = (row) => (both ? `${row.task}\n${row.group}` : name(row));
  const short = view.narrow ? 22 : 38;
  for (const {label, unit, rows: scores} of metrics) {
    const rows = scores.flatMap((row, k) => (both && row.task !== scores[k - 1]?.task ? [{heading: plain.get(row.task)}, row] : [row]));
    const headings = rows.flatMap((row, place) => (row.heading ? [{place, text: row.heading}] : []));
    const filled = rows.flatMap((row, place) => (row.heading ? [] : [{row, place}]));
    const marks = filled.flatMap(({row, place}) => ["train", "validation", "test"].map((split) => ({
      place, split, x: row[split], fill: split === "test" ? color(row.style) : split === "train" ? "var(--paper)" : "var(--line)",
      stroke: color(row.style),
      words: `${title(row)}\n${split} ${row[split]} ${unit}`
        + (split === "test" && row.interval ? `\n95 % interval ${row.interval[0]} to ${row.interval[1]}, ${row.count} seeds` : ""),
    })));
    const lines = filled.map(({row, place}) => ({place, low: Math.min(row.train, row.test, row.validation), high: Math.max(row.train, row.test, row.validation)}));
    const bars = filled.flatMap(({row, place}) => (row.interval ? [{place, low: row.interval[0], high: row.interval[1], stroke: color(row.style)}] : []));
    const left = Math.min(view.width * 0.45, 14 + 6.6 * Math.max(...filled.map(({row}) => Math.min(short, name(row).length))));
    root.append(Plot.plot({
      ...common(view),
      ariaLabel: `Scores on the three splits: ${label}`,
      width: Math.min(view.width, 760), height: 44 + 20 * rows.length, marginLeft: left, marginTop: 6, marginBottom: 38, marginRight: 14,
      y: {type: "band", domain: rows.keys(), padding: 0.2},
      x: {nice: true, zero: false},
      marks: [
        Plot.gridX({ticks: 5, stroke: "var(--rule)", strokeOpacity: 0.6}),
        Plot.axisX({ticks: 5, label, labelAnchor: "center", labelArrow: "none"}),
        Plot.axisY(filled.map(({place}) => place), {tickSize: 0, label: null, tickFormat: (place) => shorten(name(rows[place]), short)}),
        Plot.text(headings, {y: "place", text: "text", frameAnchor: "left", dx: -left + 4, textAnchor: "start", fontWeight: 600, fill: "var(--ink)"}),
        Plot.link(lines, {x1: "low", x2: "high", y1: "place", y2: "place", stroke: "var(--rule)", strokeWidth: 1.5}),
        Plot.link(bars, {x1: "low", x2: "high", y1: "place", y2: "place", stroke: "stroke", strokeWidth: 2}),
        Plot.dot(marks, {x: "x", y: "place", r: 4, fill: "fill", stroke: "stroke", strokeWidth: 1.3}),
        Plot.tip(marks, Plot.pointer({...tipText, x: "x", y: "place", title: "words", ...tipText})),
      ],
    }));
  }
  return root;
};

"use strict";
// Controls, legends, axes and formats that several panels have in common.

const DASHES = [null, "5 2", "1 2", "5 2 1 2"]; // of groups with the same color
const LINES = ["solid", "dashed", "dotted", "double"]; // of their swatches
const dashes = (style) => DASHES[Math.floor(style / COLORS) % DASHES.length];

// A panel with controls is kept, so that they keep the focus, and shows its plots again.
function redrawn(state) {
  state.show();
  return state.root;
}

// A choice of one of some [value, text] pairs: it sets state[name] and calls back.
function choice(label, options, state, name, changed) {
  const box = document.createElement("label");
  const select = document.createElement("select");
  for (const [value, text] of options) select.add(new Option(text, value));
  select.value = state[name] ??= options[0][0];
  select.addEventListener("change", () => {
    state[name] = select.value;
    changed();
  });
  box.append(`${label} `, select);
  return box;
}

// A figure of one of several sets of numbers, with a choice between them: draw(set) returns its parts.
function ofSets(sets, state, draw) {
  if (state.root) return redrawn(state);
  const root = (state.root = document.createElement("div"));
  const place = document.createElement("div");
  state.show = () => place.replaceChildren(...draw(sets[state.set]));
  if (sets.length > 1) {
    const controls = document.createElement("p");
    controls.className = "controls";
    controls.append(choice("show", sets.map((set, k) => [String(k), set.name]), state, "set", state.show));
    root.append(controls);
  }
  root.append(place);
  state.set ??= "0";
  state.show();
  return root;
}

// A box to tick: it sets state[name] and calls back.
function tick(label, state, name, changed) {
  const box = document.createElement("label");
  const input = document.createElement("input");
  input.type = "checkbox";
  input.checked = Boolean(state[name]);
  input.addEventListener("change", () => {
    state[name] = input.checked;
    changed();
  });
  box.append(input, ` ${label}`);
  return box;
}

// The colors of groups, each {label, style}.
function legend(groups) {
  const row = document.createElement("p");
  row.className = "legend";
  for (const {label, style} of groups) {
    const entry = document.createElement("span");
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    Object.assign(swatch.style, {borderColor: color(style), borderTopStyle: LINES[Math.floor(style / COLORS) % LINES.length]});
    entry.append(swatch, label);
    row.append(entry);
  }
  return row;
}

// Round places from 0 to an end, about so many.
function niceTicks(end, count = 4) {
  if (!(end > 0)) return [0];
  const rough = end / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  return [...Array(Math.floor(end / step + 1e-9) + 1).keys()].map((k) => k * step);
}

const compactFormat = new Intl.NumberFormat("en", {notation: "compact", maximumSignificantDigits: 3});
const compact = (value) => compactFormat.format(value);
const round = (value, digits = 4) => (value === null || value === undefined ? "–" : String(Number(value.toPrecision(digits))));

// The label and the seconds of a unit in which so many seconds are a handy number.
function timeUnit(seconds) {
  if (seconds >= 3 * 3600) return ["training time (h)", 3600];
  return seconds >= 180 ? ["training time (min)", 60] : ["training time (s)", 1];
}

// A number with its sign, and with as many decimals as tell apart a hundredth of the end of a scale.
const signedTo = (limit) => (value) => {
  const decimals = limit > 0 ? Math.max(0, 1 - Math.floor(Math.log10(limit))) : 0;
  const text = Math.abs(value).toFixed(decimals);
  return (Number(text) === 0 ? "" : value > 0 ? "+" : "−") + text;
};
const signed = (value, digits = 3) => (value > 0 ? "+" : value < 0 ? "−" : "") + round(Math.abs(value), digits);

// The scale of two colors around zero.
function colorKey(limit, format, words = ["less", "more"]) {
  const row = document.createElement("p");
  row.className = "scale";
  const bar = document.createElement("span");
  bar.className = "bar";
  row.append(`${words[0]} ${format(-limit)} `, bar, ` ${format(limit)} ${words[1]}`);
  return row;
}

// A table of shaded cells {row, column, value, framed, words}, in two colors around zero or in one.
function heatMap({rows, columns, cells, limit, view, format, diverging}) {
  const widest = (names) => Math.max(...names.map((name) => Math.min(name.length, 18)));
  const fitting = (names, room) => (Math.max(...names.map((name) => name.length)) <= room ? names : brief(names));
  const rowNames = fitting(rows, 18);
  const left = Math.min(view.width * 0.35, 12 + 6.9 * widest(rowNames));
  const size = Math.max(rows.length > 40 ? 3 : 14, Math.min(34, 520 / rows.length));
  const texts = new Map(cells.filter((cell) => cell.value !== null).map((cell) => [cell, format(cell.value)]));
  const room = Math.min(110, (view.width - left - 4) / columns.length);
  const numbered = size >= 16 && room >= 8 + 6.2 * Math.max(...[...texts.values()].map((text) => text.length));
  const width = left + 4 + columns.length * (numbered ? room : Math.min(room, 34));
  const columnNames = fitting(columns, (width - left) / columns.length / 6.8);
  const turned = (width - left) / columns.length < 6.8 * widest(columnNames) + 4;
  const top = turned ? 14 + 6.4 * widest(columnNames) : 26;
  const shade = (value) => (limit ? Math.min(1, Math.abs(value) / limit) : 0);
  const known = cells.filter((cell) => cell.value !== null);
  const at = {x: "column", y: "row"};
  const strength = (cell) => shade(cell.value);
  const wide = {inset: size > 10 ? 1 : 0};
  return Plot.plot({
    ...common(view),
    width,
    height: top + size * rows.length + 6,
    marginLeft: left, marginTop: top, marginRight: 4, marginBottom: 6,
    x: {type: "band", domain: columns.keys(), padding: 0},
    y: {type: "band", domain: rows.keys(), padding: 0},
    marks: [
      Plot.axisX(everyFew(columns.length, (width - left) / (turned ? 14 : 20)), {
        anchor: "top", tickSize: 0, label: null, tickRotate: turned ? -90 : 0, tickFormat: (k) => shorten(columnNames[k], 18),
      }),
      Plot.axisY(everyFew(rows.length, (size * rows.length) / 13), {tickSize: 0, label: null, tickFormat: (k) => shorten(rowNames[k], Math.floor((left - 8) / 6.9))}),
      Plot.cell(known, {...at, ...wide, fill: "var(--faint)"}),
      Plot.cell(known, {
        ...at, ...wide, fillOpacity: strength,
        fill: (cell) => (!diverging ? "var(--less)" : cell.value < 0 ? "var(--less)" : "var(--more)"),
      }),
      Plot.cell(known.filter((cell) => cell.framed), {...at, inset: size > 10 ? 2 : 0.5, stroke: "var(--ink)", strokeWidth: size > 10 ? 1.4 : 0.6}),
      Plot.text(numbered ? known : [], {
        ...at, text: (cell) => texts.get(cell), fontSize: 11,
        fontWeight: (cell) => (cell.framed ? 600 : 400), fill: "var(--ink)",
      }),
      Plot.tip(cells, Plot.pointer({...tipText, ...at, title: "words", ...tipText})),
    ],
  });
}

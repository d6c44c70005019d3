"use strict";
// Controls, legends, axes and formats that several panels have in common.

const DASHES = [null, "5 2", "1 2", "5 2 1 2"]; // of groups with the same color
const dashes = (style) => DASHES[Math.floor(style / COLORS) % DASHES.length];

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
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const shape = {x1: 0, y1: 4, x2: 26, y2: 4, stroke: color(style), "stroke-width": 3};
    if (dashes(style)) shape["stroke-dasharray"] = dashes(style);
    for (const [key, value] of Object.entries(shape)) line.setAttribute(key, value);
    for (const [key, value] of Object.entries({width: 26, height: 8, class: "swatch", "aria-hidden": "true"})) svg.setAttribute(key, value);
    svg.append(line);
    entry.append(svg, ` ${label}`);
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

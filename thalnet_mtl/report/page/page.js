"use strict";
// Draw every figure of the page with the function of its kind, and switch the theme.

const panels = {}; // by kind: a function of the data and the view, which returns an element
const COLORS = 7; // --c0 to --c6 in style.css
const color = (place) => `var(--c${place % COLORS})`;

// The color of text on var(--faint) under so much (0 to 1) of var(--deep): that of higher contrast.
const textOn = (shade) =>
  `light-dark(${shade > 0.74 ? "#fff" : "#000"}, ${shade > 0.61 ? "#000" : "#fff"})`;

// What all plots have in common; colors that a panel computes are colors already.
const common = (view) => ({
  width: view.width,
  ariaLabel: view.label,
  ariaDescription: view.sentence,
  style: {background: "none", color: "var(--ink)", fontFamily: "inherit", fontSize: "12px", overflow: "visible"},
  color: {type: "identity"},
  opacity: {type: "identity"},
});

const tipText = {lineHeight: 1.35, lineWidth: 28};

// The places 0, k, 2k, … of so many things, so that at most `room` of them are named.
function everyFew(count, room) {
  const step = Math.ceil(count / Math.max(1, Math.floor(room)));
  return [...Array(Math.ceil(count / step)).keys()].map((place) => place * step);
}

// Names without what they all begin with, where that is long: …0, …1 for split_digits_rows_0 and so on.
function brief(names) {
  let length = names.length > 1 ? Math.min(...names.map((name) => name.length)) : 0;
  while (names.some((name) => !name.startsWith(names[0].slice(0, length)))) length -= 1;
  const wordStart = (text) => text.replace(/[^_\W]*$/, "").length;
  let start = wordStart(names[0].slice(0, length));
  if (names.every((name) => name.length - start <= 3)) start = wordStart(names[0].slice(0, Math.max(0, start - 1)));
  return start < 6 ? names : names.map((name) => `…${name.slice(start)}`);
}

const ruler = document.createElement("canvas").getContext("2d");

// Leave out the middle of a text that is wider than so many letters, of 6.9 pixels each. More of its
// end is kept than of its begin, as names often differ at the end.
function shorten(text, length) {
  ruler.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  let short = text;
  for (let kept = length - 1; kept > 3 && ruler.measureText(short).width > 6.9 * length; kept -= 1) {
    const begin = Math.round(0.35 * kept);
    short = `${text.slice(0, begin)}…${text.slice(text.length - kept + begin)}`;
  }
  return short;
}

// Titles of tasks without their kind in parentheses, if they still differ.
function withoutKinds(titles) {
  const names = titles.map((title) => title.replace(/ \([^()]*\)$/, ""));
  return new Set(names).size === new Set(titles).size ? names : titles;
}

function draw(figure) {
  const place = figure.querySelector(".drawing");
  const view = {
    state: {},
    label: figure.getAttribute("aria-label"),
    sentence: figure.querySelector("figcaption")?.textContent,
  };
  const data = JSON.parse(figure.querySelector("script").textContent);
  followPlots(place);
  new ResizeObserver(() => {
    const width = Math.floor(place.clientWidth);
    if (!width || width === view.width) return;
    Object.assign(view, {width, narrow: width < 480});
    const drawing = panels[figure.dataset.panel](data, view);
    if (drawing !== place.firstChild) place.replaceChildren(drawing); // what stays keeps the focus
  }).observe(place);
}

function switchTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.textContent = isDark() ? "Light theme" : "Dark theme";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
}

document.addEventListener("DOMContentLoaded", () => {
  switchTheme(document.querySelector("#theme"));
  document.querySelectorAll("figure[data-panel]").forEach(draw);
});

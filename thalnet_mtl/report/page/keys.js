"use strict";
// Tips by keyboard: the arrow keys move from mark to mark of a plot that has the focus.

const MARKS = ["dot", "cell", "rect", "bar"].map((name) => `[aria-label="${name}"] > *`).join();
const ALONG = 24; // places on a line

// The places of a plot that may have a tip, as [x, y] in the window.
function placesOf(plot) {
  const marks = [...plot.querySelectorAll(MARKS)].map((mark) => {
    const box = mark.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  });
  if (marks.length) return marks;
  return [...plot.querySelectorAll('[aria-label="line"] > path')].flatMap((line) => {
    const length = line.getTotalLength();
    const toWindow = line.getScreenCTM();
    return [...Array(ALONG + 1).keys()].map((k) => {
      const point = line.getPointAtLength((length * k) / ALONG).matrixTransform(toWindow);
      return [point.x, point.y];
    });
  });
}

// The nearest place in a direction; what is aside counts as three times as far.
function nextPlace(places, [x, y], [toX, toY]) {
  let [best, least] = [null, Infinity];
  for (const place of places) {
    const [dx, dy] = [place[0] - x, place[1] - y];
    const ahead = dx * toX + dy * toY;
    const far = ahead + 3 * Math.abs(dx * toY + dy * toX);
    if (ahead > 1 && far < least) [best, least] = [place, far];
  }
  return best;
}

const ARROWS = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]};

// Let a plot be reached by the tabulator, and say the words of its tip in `spoken`.
function readByKeys(plot, spoken) {
  let at = null; // relative to the plot
  const point = (kind, [x, y]) =>
    plot.dispatchEvent(new PointerEvent(kind, {clientX: x, clientY: y, pointerType: "mouse", bubbles: true}));
  const show = (place) => {
    const {x, y} = plot.getBoundingClientRect();
    at = [place[0] - x, place[1] - y];
    point("pointermove", place);
    requestAnimationFrame(() => {
      const lines = [...plot.querySelectorAll('[aria-label="tip"] tspan')].map((line) => line.textContent);
      spoken.textContent = lines.join(" ").replace(/[\u200b\s]+/g, " ").trim();
    });
  };
  plot.tabIndex = 0;
  plot.setAttribute("role", "img");
  plot.addEventListener("focus", () => {
    const [first] = placesOf(plot);
    if (first && plot.matches(":focus-visible")) show(first);
  });
  plot.addEventListener("keydown", (event) => {
    const {x, y} = plot.getBoundingClientRect();
    const from = at && [at[0] + x, at[1] + y];
    if (event.key === "Escape" && at) point("pointerleave", from);
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const next = from && nextPlace(placesOf(plot), from, ARROWS[event.key]);
    if (next) show(next);
  });
  plot.addEventListener("blur", () => {
    if (at) point("pointerleave", [at[0], at[1]]);
    at = null;
    spoken.textContent = "";
  });
}

// Follow the plots of a figure, which are drawn anew when its width or a choice changes.
function followPlots(drawing) {
  const spoken = Object.assign(document.createElement("p"), {className: "spoken"});
  spoken.setAttribute("aria-live", "polite");
  drawing.after(spoken);
  const follow = () => {
    for (const tips of drawing.querySelectorAll('svg:not([tabindex]) [aria-label="tip"]')) readByKeys(tips.ownerSVGElement, spoken);
  };
  new MutationObserver(follow).observe(drawing, {childList: true, subtree: true});
}

// The parts of Observable Plot that the panels draw with; all others are left out of plot.js.
export {
  areaX, areaY, arrow, axisX, axisY, barX, barY, cell, crosshairX, dot, frame, gridX, gridY,
  line, lineY, link, plot, pointer, pointerX, pointerY, rect, ruleX, ruleY, text, tickX, tickY, tip
} from "@observablehq/plot";

"use strict";
// The loss of score on each task without each module, in two colors around zero.

panels.lesions = ({modules, tasks, unit, sets}, view) => {
  const {state} = view;
  if (state.root) return redrawn(state);
  const root = (state.root = document.createElement("div"));
  state.show = show;
  const place = document.createElement("div");
  if (sets.length > 1) {
    const controls = document.createElement("p");
    controls.className = "controls";
    controls.append(choice("show", sets.map((set, k) => [String(k), set.name]), state, "set", show));
    root.append(controls);
  }
  root.append(place);
  state.set ??= "0";
  show();
  return root;

  function show() {
    const {values, limit} = sets[state.set];
    const format = signedTo(limit);
    const cells = modules.flatMap((module, row) => tasks.map((task, column) => {
      const value = values[row][column];
      const words = value === null ? `${module} does not run for ${task}` : `without ${module}, ${task} loses\n${signed(value)} ${unit}`;
      return {row, column, value, words};
    }));
    place.replaceChildren(
      colorKey(limit, (value) => `${format(value)} ${unit}`, ["gains", "loses"]),
      heatMap({rows: modules, columns: tasks, cells, limit, view, format, diverging: true}),
    );
  }
};

"use strict";
// The loss of score on each task without each module, in two colors around zero.

panels.lesions = ({modules, tasks, unit, sets}, view) => ofSets(sets, view.state, ({values, limit}) => {
  const format = signedTo(limit);
  const cells = modules.flatMap((module, row) => tasks.map((task, column) => {
    const value = values[row][column];
    const words = value === null ? `${module} does not run for ${task}` : `without ${module}, ${task} loses\n${signed(value)} ${unit}`;
    return {row, column, value, words};
  }));
  return [
    colorKey(limit, (value) => `${format(value)} ${unit}`, ["gains", "loses"]),
    heatMap({rows: modules, columns: tasks, cells, limit, view, format, diverging: true}),
  ];
});

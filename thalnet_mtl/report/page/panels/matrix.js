"use strict";
// The scores of all tasks after each experience, darker for a better one.

panels.matrix = ({tasks, stages, units, trained, scores, shades}, view) => {
  const few = tasks.length <= 15 && stages.length <= 40;
  const rows = stages.map((stage) => stage.split(":")[0]);
  const names = brief(tasks);
  const longest = Math.max(...names.map((name) => name.length));
  const turned = (view.width - 70) / tasks.length < 6.5 * longest;
  const height = few ? Math.max(26, 240 / stages.length) * stages.length : Math.min(480, view.width);
  const cells = scores.flatMap((row, stage) =>
    row.map((score, task) => ({
      task,
      stage,
      score,
      shade: shades[stage][task],
      trained: trained[stage].includes(task),
      words: `${tasks[task]} after ${stages[stage]}\n${score === null ? "no head yet" : `${score} ${units[task]}`}`,
    }))
  );
  const known = cells.filter((cell) => cell.shade !== null);
  const at = {x: "task", y: "stage", inset: few ? 1 : 0};
  return Plot.plot({
    ...common(view),
    height: height + (turned ? 94 : 34),
    marginLeft: 66,
    marginTop: turned ? 90 : 30,
    marginRight: 2,
    marginBottom: 4,
    x: {type: "band", domain: tasks.keys(), padding: 0},
    y: {type: "band", domain: stages.keys(), padding: 0},
    marks: [
      Plot.axisX(few ? tasks.keys() : everyFew(tasks.length, view.width / 20), {
        anchor: "top", tickSize: 0, label: null, tickRotate: turned ? -90 : 0,
        tickFormat: (place) => shorten(names[place], turned ? 13 : 40),
      }),
      Plot.axisY(everyFew(stages.length, few ? 40 : height / 20), {
        tickSize: 0, label: null, tickFormat: (place) => rows[place],
      }),
      Plot.cell(known, {...at, fill: "var(--faint)"}),
      Plot.cell(known, {...at, fill: "var(--deep)", fillOpacity: "shade"}),
      Plot.cell(known.filter((cell) => cell.trained), {...at, stroke: "var(--accent)", strokeWidth: few ? 1.8 : 0.6}),
      few ? Plot.text(known, {
        x: "task", y: "stage", text: (cell) => String(Number(cell.score.toPrecision(3))), fontSize: 11.5,
        fill: (cell) => textOn(cell.shade),
      }) : null,
      Plot.tip(cells, Plot.pointer({...tipText, x: "task", y: "stage", title: "words"})),
    ],
  });
};

"use strict";
// The modules around their center at the stage that a slider chooses.

const DRAWN = 160; // readings at most, the strongest ones
const NAMED = 10; // modules; of more, pointing at one tells its name
const LISTED = 8; // tasks; of more, only those that are trained at the stage

const within = (spans, stage) => spans.some(([first, end]) => first <= stage && stage < end);

// A padlock in the square [-r, r], for a dot of Plot.
const padlock = {
  draw(context, size) {
    const r = Math.sqrt(size / Math.PI);
    context.rect(-0.8 * r, -0.1 * r, 1.6 * r, 1.2 * r);
    context.moveTo(-0.5 * r, -0.1 * r);
    context.arc(0, -0.35 * r, 0.5 * r, Math.PI, 0);
    context.lineTo(0.5 * r, -0.1 * r);
    context.lineTo(0.25 * r, -0.1 * r);
    context.arc(0, -0.35 * r, 0.25 * r, 0, Math.PI, true);
    context.lineTo(-0.25 * r, -0.1 * r);
    context.closePath();
  },
};

// The places of all modules on the circle: inputs on the left, outputs on the right.
function around(modules) {
  const inputs = modules.filter((m) => m.input && !m.output);
  const outputs = modules.filter((m) => m.output && !m.input);
  const others = modules.filter((m) => m.input === m.output);
  const half = Math.ceil(others.length / 2);
  const order = [...inputs, ...others.slice(0, half), ...outputs.reverse(), ...others.slice(half).reverse()];
  const turn = inputs.length ? (inputs.length - 1) / 2 : -0.5;
  return new Map(order.map((m, k) => [m, Math.PI + (2 * Math.PI * (k - turn)) / order.length]));
}

function plotGraph(data, view, stage) {
  const {width} = view;
  const right = view.narrow ? 100 : 150;
  const left = 16;
  const height = view.narrow ? 300 : 380;
  const middle = {x: left + (width - left - right) / 2, y: height / 2 - 6};
  const rim = Math.min((width - left - right) / 2 - (view.narrow ? 34 : 60), height / 2 - 40);
  const many = data.modules.length > NAMED;
  const room = (Math.PI * rim) / Math.max(data.modules.length, 3);
  const top = Math.max(...data.modules.map((m) => m.parameters), 1);
  const angles = around(data.modules);
  const modules = data.modules.map((m) => ({
    ...m,
    x: middle.x + rim * Math.cos(angles.get(m)),
    y: middle.y + rim * Math.sin(angles.get(m)),
    r: Math.max(2, Math.min(24, 0.8 * room) * Math.sqrt(m.parameters / top)),
    fill: m.task === null ? "var(--line)" : color(m.task),
    angle: angles.get(m),
    locked: within(m.frozen, stage),
  }));
  const all = data.tasks.map((task, place) => ({...task, place})).filter((task) => within(task.there, stage));
  const trained = all.filter((task) => within(task.trained, stage));
  const tasks = all.length <= LISTED ? all : trained.slice(0, LISTED);
  const used = new Set(trained.flatMap((task) => task.active));
  const there = modules.filter((m) => within(m.there, stage));
  const isUsed = (m) => !trained.length || used.has(modules.indexOf(m));

  const open = data.readings.filter(([source, reader, , spans]) => source !== reader && within(spans, stage));
  const most = Math.max(...data.readings.map((reading) => (reading[0] === reading[1] ? 0 : reading[2] ?? 0)));
  const drawn = open.toSorted((a, b) => (b[2] ?? 0) - (a[2] ?? 0)).slice(0, DRAWN);
  const between = (from, to, more) => {
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    const length = Math.hypot(dx, dy) || 1;
    const [a, b] = [from.r + 2, to.r + 4];
    return {
      x1: from.x + (dx * a) / length, y1: from.y + (dy * a) / length,
      x2: to.x - (dx * b) / length, y2: to.y - (dy * b) / length, ...more,
    };
  };
  const readings = drawn.map(([source, reader, weight]) =>
    between(modules[source], modules[reader], {source, reader, share: most && weight !== null ? weight / most : 0.3})
  );
  const spread = (place) => (height * (place + 1)) / (tasks.length + 1);
  const score = (task) => task.scores.filter(([first]) => first <= stage).at(-1)?.[1];
  const ends = tasks.flatMap((task, place) => {
    const common = {y: spread(place), r: 5, fill: color(task.place), task, isTrained: trained.includes(task)};
    return [
      {...common, x: 8, kind: "data"},
      {...common, x: width - right + 8, kind: "head"},
    ];
  });
  const paths = ends.flatMap((end) =>
    end.task[end.kind === "data" ? "input" : "output"]
      .map((place) => modules[place])
      .filter((m) => there.includes(m))
      .map((m) => (end.kind === "data" ? between(end, m, end) : between(m, end, end)))
  );
  const read = modules.map(() => []); // by reader, the modules that it reads
  for (const [source, reader, weight, spans] of data.readings) {
    if (within(spans, stage)) read[reader].push(`${modules[source].name} ${weight ?? ""}`.trim());
  }
  const tips = [
    ...there.map((m) => {
      const sources = read[modules.indexOf(m)];
      return {
        ...m,
        words: [
          `${m.name}${m.locked ? ", frozen" : ""}`,
          `${m.parameters.toLocaleString("en")} parameters, ${m.about}`,
          m.task === null ? "shared by tasks" : `of ${data.tasks[m.task].name}`,
          `reads ${shorten(sources.slice(0, 8).join(", "), 200)}${sources.length > 8 ? ` and ${sources.length - 8} more` : ""}`,
        ].join("\n"),
      };
    }),
    ...ends.map((end) => ({
      ...end,
      words: end.kind === "data"
        ? `data of ${end.task.name}${end.task.encoded ? ", through a trained encoder" : ""}`
        : [
            `head of ${end.task.name}`,
            `${end.task.parameters.toLocaleString("en")} parameters, with encoders`,
            score(end.task) ? `validation score ${score(end.task)}` : "not scored yet",
            ...(end.task.tasks.length ? [shorten(`for ${end.task.tasks.join(", ")}`, 120)] : []),
          ].join("\n"),
    })),
  ];
  const place = {x: "x", y: "y"};
  const path = {x1: "x1", y1: "y1", x2: "x2", y2: "y2"};
  const outside = (m) => ({
    x: m.x + (m.r + 7) * Math.cos(m.angle),
    y: m.y + (m.r + 7) * Math.sin(m.angle),
  });
  const faint = (m) => (isUsed(m) ? 1 : 0.35);
  const plot = Plot.plot({
    ...common(view),
    height,
    margin: 0,
    x: {domain: [0, width], range: [0, width], axis: null},
    y: {domain: [0, height], range: [0, height], axis: null},
    r: {type: "identity"},
    marks: [
      Plot.dot([middle], {...place, r: rim * 0.34, fill: "var(--faint)"}),
      Plot.text(many ? [] : [middle], {...place, text: () => "center", fill: "var(--quiet)"}),
      Plot.link(paths, {
        ...path, stroke: "fill", strokeWidth: 1.6, strokeOpacity: (end) => (end.isTrained ? 0.9 : 0.3),
      }),
      Plot.arrow(readings, {
        ...path, bend: 14, headLength: 6, headAngle: 45, stroke: "var(--ink)",
        strokeWidth: (reading) => 0.5 + (many ? 1.2 : 2.5) * reading.share,
        strokeOpacity: (reading) => 0.15 + (many ? 0.4 : 0.65) * reading.share,
      }),
      Plot.dot(there, {...place, r: "r", fill: "fill", fillOpacity: faint, stroke: "var(--paper)", strokeWidth: 1.5}),
      Plot.dot(there.filter((m) => m.locked), {
        x: (m) => (many ? outside(m).x : m.x + 0.75 * m.r + 3),
        y: (m) => (many ? outside(m).y : m.y - 0.75 * m.r - 3),
        r: many ? Math.min(5, 0.7 * room) : 6, symbol: padlock,
        fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 1.2, paintOrder: "stroke",
      }),
      Plot.text(many ? [] : there, {
        x: "x", y: (m) => m.y + m.r + 10, text: (m) => shorten(m.name, view.narrow ? 12 : 18),
        fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 4, fillOpacity: (m) => (isUsed(m) ? 1 : 0.8),
      }),
      Plot.dot(ends, {...place, r: 6, symbol: "square", fill: "fill", fillOpacity: (end) => (end.isTrained ? 1 : 0.45)}),
      Plot.text(ends.filter((end) => end.kind === "head"), {
        ...place, dx: 10, textAnchor: "start", fontWeight: 600, dy: -7, fill: "var(--ink)",
        text: (end) => shorten(end.task.name, view.narrow ? 12 : 18),
      }),
      Plot.text(ends.filter((end) => end.kind === "head"), {
        ...place, dx: 10, textAnchor: "start", dy: 8, fill: "var(--quiet)", text: (end) => score(end.task) ?? "–",
      }),
      Plot.text(ends.filter((end) => end.kind === "data" && !view.narrow).slice(0, 1), {
        ...place, dx: -6, dy: -16, textAnchor: "start", fill: "var(--quiet)", text: () => "data",
      }),
      Plot.tip(tips, Plot.pointer({...tipText, ...place, title: "words", maxRadius: 30})),
    ],
  });
  plot.addEventListener("input", () => {
    const chosen = plot.value && modules.findIndex((m) => m.name === plot.value.name && !plot.value.kind);
    plot.querySelectorAll('[aria-label="arrow"] path').forEach((line, k) => {
      const touches = plot.value === null || chosen < 0 || [readings[k].source, readings[k].reader].includes(chosen);
      line.style.opacity = touches ? 1 : 0.1;
    });
  });
  return {plot, hidden: open.length - drawn.length, open: open.length};
}

panels.graph = (data, view) => {
  const last = data.stages.length - 1;
  if (!view.state.box) {
    const make = (name, properties) => Object.assign(document.createElement(name), properties);
    const box = make("div", {className: "graph"});
    const slider = make("input", {type: "range", min: 0, max: last, step: 1, value: last});
    slider.setAttribute("aria-label", "Stage of training and growth");
    const step = (by, text, label) => {
      const button = make("button", {type: "button", textContent: text});
      button.setAttribute("aria-label", label);
      button.addEventListener("click", () => {
        slider.value = Number(slider.value) + by;
        slider.dispatchEvent(new Event("input"));
      });
      return button;
    };
    const controls = make("div", {className: "slider", hidden: !last});
    const where = make("p", {className: "where"});
    const words = make("ul", {className: "what"});
    const drawing = make("div");
    controls.append(step(-1, "‹", "Previous stage"), slider, step(1, "›", "Next stage"));
    box.append(drawing, controls, where, words);
    view.state = {box, slider, where, words, drawing};
    slider.addEventListener("input", () => view.state.show());
  }
  const {box, slider, where, words, drawing} = view.state;
  view.state.show = () => {
    const place = Number(slider.value);
    const stage = data.stages[place];
    const {plot, hidden, open} = plotGraph(data, view, place);
    drawing.replaceChildren(plot);
    const position = `Stage ${place + 1} of ${last + 1}, step ${stage.step.toLocaleString("en")}: ${stage.words}`;
    slider.setAttribute("aria-valuetext", position);
    where.textContent = position;
    const lines = hidden ? [...stage.lines, `Drawn are the ${open - hidden} strongest of ${open.toLocaleString("en")} readings.`] : stage.lines;
    words.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), {textContent: line})));
  };
  view.state.show();
  return box;
};

"use strict";
// Curves of training: a small plot for each task and quantity, with controls where there are many.

panels.curves = (data, view) => {
  const FEW = 6; // plots that are shown at once without a choice
  const MANY = 12; // tasks: of more, a summary or one of them is shown
  const {state} = view;
  const tasks = withoutKinds(data.tasks);
  if (state.root) return redrawn(state);
  const root = (state.root = document.createElement("div"));
  state.show = show;
  const quantities = [...new Set(data.lines.map((line) => line.of))];
  const count = new Set(data.lines.map((line) => `${line.task} ${line.of}`)).size;
  const chosen = count > FEW;
  const mains = new Set(data.lines.filter((line) => line.main).map((line) => line.of));
  const options = mains.size > 1 ? ["main scores", ...quantities] : quantities;
  state.of ??= mains.size > 1 ? "main scores" : [...mains, ...quantities][0];
  state.task ??= data.tasks.length > MANY ? "all" : "";
  const timed = data.lines.some((line) => line.seconds);
  const seeded = data.lines.some((line) => line.seeds);

  const controls = document.createElement("p");
  controls.className = "controls";
  if (chosen && options.length > 1)
    controls.append(choice("show", options.map((name) => [name, name]), state, "of", show));
  if (data.tasks.length > MANY)
    controls.append(choice("of", [["all", `all ${data.tasks.length} tasks`], ...tasks.map((t, k) => [String(k), t])],
      state, "task", show));
  if (timed) controls.append(choice("over", [["steps", "optimizer steps"], ["time", "training time"]], state, "over", show));
  if (seeded) controls.append(tick("single seeds", state, "seeds", show));
  const plots = document.createElement("div");
  plots.className = "plots";
  if (data.groups.length > 1) root.append(legend(data.groups));
  root.append(controls, plots);
  show();
  return root;

  function show() {
    const lines = data.lines.filter((line) =>
      (!chosen || line.of === state.of || (state.of === "main scores" && line.main)) &&
      (!state.task || state.task === "all" || line.task === Number(state.task)));
    const cells = new Map();
    for (const line of lines) {
      const key = state.task === "all" ? line.of : `${line.task} ${line.of}`;
      cells.set(key, [...(cells.get(key) ?? []), line]);
    }
    const most = Math.max(1, Math.floor((view.width + 20) / 300));
    const columns = Math.ceil(cells.size / Math.ceil(cells.size / most)); // rows of equal length
    const width = Math.floor((view.width - 20 * (columns - 1)) / columns);
    plots.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    plots.replaceChildren(...[...cells.values()].map((own) => cell(own, Math.min(width, 620))));
  }

  function cell(lines, width) {
    const place = document.createElement("div");
    const title = document.createElement("h4");
    const all = state.task === "all";
    title.textContent = all ? `${data.tasks.length} tasks` : tasks[lines[0].task];
    const of = document.createElement("span");
    of.textContent = lines[0].of;
    title.append(of);
    place.append(title, ...(lines.every((line) => line.mid.length < 2) ? numbers(lines) : [all ? summary(lines, width) : plot(lines, width)]));
    return place;
  }

  // Lines of a single point: the numbers say more than a dot.
  function numbers(lines) {
    return lines.map((line) => {
      const row = document.createElement("p");
      const value = line.mid[0] === null ? "not a number" : `${line.mid[0]} ${line.unit}`;
      row.textContent = `${data.groups[line.group].label}: ${value} at step ${data.steps[line.steps][0].toLocaleString("en")}`
        + (line.tested ? `; test ${line.tested}` : "");
      return row;
    });
  }

  function xs(line) {
    return state.over === "time" && line.seconds ? line.seconds : data.steps[line.steps];
  }

  function plot(lines, width) {
    const longest = Math.max(...lines.flatMap((line) => xs(line).at(-1)));
    const [unit, size] = state.over === "time" ? timeUnit(longest) : ["optimizer steps", 1];
    const end = longest / size;
    const tested = lines.filter((line) => line.test);
    const changes = data.marks[lines[0].task].map(([step, seconds, words]) => ({
      x: state.over === "time" ? seconds / size : step, words: `step ${step.toLocaleString("en")}: ${words}`,
    }));
    const points = lines.map((line) => xs(line).map((x, k) => ({
      x: x / size, y: line.mid[k], low: line.low?.[k], high: line.high?.[k], words: words(line, k),
    })));
    const tests = tested.map((line, k) => ({
      x: end * (1.06 + 0.06 * k / tested.length), y: line.test[0], low: line.test[1], high: line.test[2], fill: colorOf(line),
      words: `${label(line)}test ${line.tested}`,
    }));
    const heights = [...points.flat(), ...tests].flatMap(({y, low, high}) => [y, low ?? y, high ?? y]).filter((y) => y !== null);
    const [least, most] = [Math.min(...heights), Math.max(...heights)];
    const margin = most > least ? 0 : Math.abs(most) / 20 || 1;
    return Plot.plot({
      ...common(view),
      ariaLabel: `${lines[0].of} of ${data.tasks[lines[0].task]}`,
      width, height: 190, marginLeft: 46, marginRight: 10, marginTop: 18, marginBottom: 32,
      x: {domain: [0, end * (tests.length ? 1.14 : 1.02)]},
      y: {nice: true, domain: [least - margin, most + margin]},
      marks: [
        Plot.gridY({ticks: 5, stroke: "var(--rule)", strokeOpacity: 0.6}),
        Plot.axisY({ticks: 5, label: null, tickSize: 0}),
        Plot.axisX(niceTicks(end), {label: unit, tickFormat: compact, labelAnchor: "center", labelArrow: "none"}),
        Plot.ruleX(changes, {x: "x", stroke: "var(--line)", strokeWidth: 0.7, strokeDasharray: "2 2"}),
        Plot.text(tests.length ? [["test", end * 1.07]] : [], {x: "1", text: "0", frameAnchor: "top", dy: -14, fill: "var(--quiet)"}),
        ...lines.map((line, n) => Plot.areaY(line.low ? points[n] : [], {x: "x", y1: "low", y2: "high", fill: colorOf(line), fillOpacity: 0.18})),
        ...lines.flatMap((line) => (state.seeds && line.seeds ? line.seeds.map((seed) => Plot.lineY(
          seed.map((y, k) => ({x: xs(line)[k] / size, y})), {x: "x", y: "y", stroke: colorOf(line), strokeWidth: 0.7, strokeOpacity: 0.55})) : [])),
        ...lines.map((line, n) => Plot.lineY(points[n], {x: "x", y: "y", stroke: colorOf(line), strokeWidth: 1.8, strokeDasharray: dashOf(line)})),
        ...lines.map((line, n) => Plot.dot(line.mid.length < 15 ? points[n] : [], {x: "x", y: "y", r: 2, fill: colorOf(line)})),
        Plot.ruleX(tests, {x: "x", y1: "low", y2: "high", stroke: "fill"}),
        Plot.dot(tests, {x: "x", y: "y", r: 3, fill: "fill"}),
        Plot.dot(changes, {x: "x", frameAnchor: "top", symbol: "triangle", r: 3.5, dy: -3, fill: "var(--quiet)", rotate: 180}),
        Plot.tip([...points.flat(), ...tests], Plot.pointer({...tipText, x: "x", y: "y", title: "words", ...tipText})),
        Plot.tip(changes, Plot.pointerX({...tipText, x: "x", frameAnchor: "top", title: "words", maxRadius: 5, dy: 4, ...tipText})),
      ],
    });
  }

  function summary(lines, width) {
    const steps = [...new Set(lines.flatMap((line) => data.steps[line.steps]))].sort((a, b) => a - b);
    const points = steps.map((x) => {
      const values = lines.map((line) => at(line, x)).filter((y) => y !== null).sort((a, b) => a - b);
      const quantile = (share) => {
        const place = share * (values.length - 1), low = Math.floor(place);
        return values[low] + (place - low) * ((values[low + 1] ?? values[low]) - values[low]);
      };
      const [lowest, lower, middle, upper, highest] = [0, 0.25, 0.5, 0.75, 1].map(quantile);
      const words = `step ${x.toLocaleString("en")}: ${values.length} lines\nmedian ${round(middle)}\nmiddle half ${round(lower)} to ${round(upper)}\nlowest ${round(lowest)}, highest ${round(highest)}`;
      return {x, lowest, lower, middle, upper, highest, words};
    });
    return Plot.plot({
      ...common(view),
      ariaLabel: `${lines[0].of} of all tasks`,
      width, height: 240, marginLeft: 46, marginTop: 14, marginBottom: 32,
      x: {domain: [0, steps.at(-1) * 1.02]},
      y: {nice: true, zero: false},
      marks: [
        Plot.gridY({ticks: 5, stroke: "var(--rule)", strokeOpacity: 0.6}),
        Plot.axisY({ticks: 5, label: null, tickSize: 0}),
        Plot.axisX(niceTicks(steps.at(-1)), {label: "optimizer steps", tickFormat: compact, labelAnchor: "center", labelArrow: "none"}),
        Plot.areaY(points, {x: "x", y1: "lowest", y2: "highest", fill: "var(--c0)", fillOpacity: 0.15}),
        Plot.areaY(points, {x: "x", y1: "lower", y2: "upper", fill: "var(--c0)", fillOpacity: 0.3}),
        Plot.lineY(points, {x: "x", y: "middle", stroke: "var(--c0)", strokeWidth: 1.8}),
        Plot.tip(points, Plot.pointerX({...tipText, x: "x", y: "middle", title: "words", ...tipText})),
      ],
    });
  }

  // The value of a line at a step, between two of its points; null before the first and well after the last.
  function at(line, x) {
    const steps = data.steps[line.steps];
    const next = steps.findIndex((step) => step >= x);
    const gap = (steps.at(-1) - steps[0]) / Math.max(1, steps.length - 1);
    if (next < 0 && x - steps.at(-1) <= gap) return line.mid.at(-1);
    if (next < 0 || (next === 0 && steps[0] > x)) return null;
    if (steps[next] === x) return line.mid[next];
    const [a, b] = [line.mid[next - 1], line.mid[next]];
    return a === null || b === null ? null : a + ((b - a) * (x - steps[next - 1])) / (steps[next] - steps[next - 1]);
  }

  function label(line) {
    return data.groups.length > 1 ? `${data.groups[line.group].label}\n` : "";
  }

  function words(line, k) {
    const time = line.seconds ? `, ${round(line.seconds[k])} s` : "";
    const band = line.low ? `\n${line.low[k]} to ${line.high[k]} over ${line.count} seeds` : "";
    return `${label(line)}step ${data.steps[line.steps][k].toLocaleString("en")}${time}\n${line.mid[k]} ${line.unit}${band}`;
  }

  function colorOf(line) {
    return color(data.groups[line.group].style);
  }

  function dashOf(line) {
    return dashes(data.groups[line.group].style);
  }
};

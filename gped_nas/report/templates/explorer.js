// The front over any two recorded numbers: fills the traces of the chart from the records of their groups.
const explorer = (() => {
  const chart = charts["chart-front"];
  const form = document.getElementById("explorer");
  if (!chart || !form) return null;
  const element = document.getElementById("chart-front");
  const { members, axes } = numbers;
  const symbols = new Map(chart.data.map((trace) => [trace.meta.group, trace]));
  chart.data.push({ type: "scatter", mode: "markers", name: "within the budget", hoverinfo: "skip", marker: start.within, meta: { group: "within" } });
  members.within = [];

  // Plotly reads a little HTML in its texts: these are shown as they are, on one line, their direction kept inside.
  function plain(text, most = 120) {
    const line = [...String(text).replace(/\s+/g, " ").replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "")];
    const cut = line.length > most ? [...line.slice(0, most - 1), "…"] : line;
    const escaped = cut.join("").replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    return /[\u0590-\u08ff\ufb1d-\ufefc]/.test(escaped) ? `\u2068${escaped}\u2069` : escaped;
  }
  function hover(key, names) {
    const lines = [`<b>${plain(numbers.title(key))}</b>`];
    if (typeof key === "number") lines.push(plain(numbers.student(key)));
    for (const name of names) {
      const range = numbers.bounds(key, name);
      const interval = range ? ` [${range.map((bound) => numbers.text(name, bound)).join(", ")}]` : "";
      lines.push(`${plain(axes.get(name).label, 40)}: ${numbers.text(name, numbers.value(key, name))}${interval}`);
    }
    return lines.join("<br>");
  }

  function state() {
    const axis = (letter) => ({
      name: form.elements[`axis-${letter}`].value,
      isLog: form.elements[`log-${letter}`].checked,
    });
    return { x: axis("x"), y: axis("y"), z: axis("z"), intervals: form.elements.intervals.checked, space: form.elements.space.checked };
  }
  // A trial beyond the region is drawn on a shelf just beyond its end: farther away, the front would be small.
  function place(key, name) {
    const value = numbers.value(key, name), { shelf, direction } = axes.get(name);
    if (value === null || shelf === undefined || typeof key !== "number") return value;
    return direction === "maximize" ? Math.max(value, shelf) : Math.min(value, shelf);
  }
  const drawable = (key, { name, isLog }) => {
    const value = place(key, name);
    return value === null || (isLog && value <= 0) ? null : value;
  };

  function bars(keys, axis, visible) {
    const ranges = keys.map((key) => [numbers.value(key, axis.name), numbers.bounds(key, axis.name)]);
    const reach = (side) => ranges.map(([value, range]) => {
      if (!range) return 0;
      const end = axis.isLog && range[side] <= 0 ? value : range[side];
      return Math.max(0, side ? end - value : value - end);
    });
    return { array: reach(1), arrayminus: reach(0), visible: visible && ranges.some(([, range]) => range) };
  }

  // What nothing beats in the two axes shown, from left to right.
  function staircase(x, y) {
    const better = [x, y].map(({ name }) => axes.get(name).direction);
    if (better.includes(null) || x.name === y.name) return [];
    const [signX, signY] = better.map((direction) => (direction === "minimize" ? 1 : -1));
    const points = [...members.front, ...members.complete].map((key) => [drawable(key, x), drawable(key, y)]);
    const steps = [];
    for (const point of points.filter((p) => !p.includes(null)).sort((a, b) => signX * (a[0] - b[0]) || signY * (a[1] - b[1]))) {
      if (!steps.length || signY * point[1] < signY * steps.at(-1)[1]) steps.push(point);
    }
    return steps.sort((a, b) => a[0] - b[0]);
  }

  function endsOfRegion(x, y) {
    const line = { color: "#8c8c8c", width: 1, dash: "dot" };
    return [[x, "x", "y"], [y, "y", "x"]].flatMap(([{ name, isLog }, letter, other]) => {
      const { bound } = axes.get(name);
      if (bound === undefined || (isLog && bound <= 0)) return [];
      return [{ type: "line", layer: "below", line, [`${letter}0`]: bound, [`${letter}1`]: bound, [`${other}0`]: 0, [`${other}1`]: 1, [`${other}ref`]: "paper" }];
    });
  }

  function axisLayout(layout, { name, isLog }, values) {
    const wide = isLog && values.length && Math.max(...values) > 100 * Math.min(...values);
    const { dtick, tickformat, minor, type, range, autorange, ...rest } = layout;
    // a prefix beside a unit that has one, as of ms, would mislead
    const cost = axes.get(name).kind === "cost" && !name.endsWith("_ms");
    return {
      ...rest,
      title: { ...rest.title, text: plain(axes.get(name).label, 90) },
      type: isLog ? "log" : "linear",
      ...(cost ? { tickformat: "~s" } : isLog ? { tickformat: "~g" } : {}),
      ...(isLog ? { dtick: wide ? 1 : "D2" } : {}),
      ...(isLog ? { minor: { ticks: "outside" } } : {}),
    };
  }

  function fill() {
    const { x, y, z, intervals, space: deep } = state();
    const all = { x: [], y: [] };
    for (const trace of chart.data) {
      const { group } = trace.meta;
      if (group === "step") {
        const steps = staircase(x, y);
        trace.x = steps.map((p) => p[0]);
        trace.y = steps.map((p) => p[1]);
        trace.line.shape = axes.get(x.name).direction === "maximize" ? "vh" : "hv";
        continue;
      }
      const keys = members[group].filter((key) => drawable(key, x) !== null && drawable(key, y) !== null);
      trace.x = keys.map((key) => drawable(key, x));
      trace.y = keys.map((key) => drawable(key, y));
      trace.customdata = keys;
      if (group !== "within") trace.hovertext = keys.map((key) => hover(key, [...new Set([y.name, x.name])]));
      if (trace.error_x) {
        Object.assign(trace.error_x, bars(keys, x, intervals));
        Object.assign(trace.error_y, bars(keys, y, intervals));
      }
      all.x.push(...trace.x);
      all.y.push(...trace.y);
    }
    chart.layout.xaxis = axisLayout(chart.layout.xaxis, x, all.x);
    chart.layout.yaxis = axisLayout(chart.layout.yaxis, y, all.y);
    chart.layout.shapes = endsOfRegion(x, y);
    const names = [y, x, z].map(({ name }) => axes.get(name).label);
    const title = `${names[0]} against ${names[1]}${deep ? ` and ${names[2]}` : ""}`;
    document.getElementById("explorer-title").textContent = title;
    element.setAttribute("aria-label", `${title}; the numbers are in the table of the front`);
  }

  const watchers = [];
  function update() {
    fill();
    chart.waiting = state().space;
    element.hidden = state().space;
    if (!state().space) drawing.draw("chart-front");
    watchers.forEach((watch) => watch(state()));
  }
  form.addEventListener("change", ({ target }) => {
    const letter = /^axis-(.)$/.exec(target.name)?.[1];
    if (letter) form.elements[`log-${letter}`].checked = axes.get(target.value).log;
    update();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  chart.waiting = false;
  update();
  element.on("plotly_click", ({ points }) => {
    const key = points[0].customdata;
    if (typeof key === "number") reveal.trial(key, numbers.onFront.has(key));
  });

  // Marks the best student within the budget that budget.js was given.
  function mark(trial) {
    members.within = trial === null ? [] : [trial];
    update();
  }
  return { state, symbols, drawable, mark, watch: (call) => { watchers.push(call); call(state()); } };
})();

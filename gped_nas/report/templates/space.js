// The front over three axes: a projection that is turned by dragging or with the arrow keys. Needs no WebGL.
const space = (() => {
  const svg = document.getElementById("space");
  if (!explorer || !svg) return null;
  const figure = document.getElementById("space-view");
  const axisZ = document.getElementById("axis-z-control");
  const SIZE = 520, HALF = SIZE / 2, SCALE = 165;
  let yaw = -0.65, pitch = 0.42, now = null;

  function add(name, attributes, content) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (content !== undefined) element.textContent = content;
    svg.append(element);
    return element;
  }
  // The unit cube, turned about its upright axis and then tilted; orthographic.
  function project([x, y, z]) {
    const [a, b, c] = [x - 0.5, y - 0.5, z - 0.5];
    const across = a * Math.cos(yaw) + b * Math.sin(yaw), deep = -a * Math.sin(yaw) + b * Math.cos(yaw);
    const up = c * Math.cos(pitch) + deep * Math.sin(pitch), depth = deep * Math.cos(pitch) - c * Math.sin(pitch);
    return [HALF + 1.6 * SCALE * across, HALF - 1.6 * SCALE * up, depth];
  }
  const line = (a, b, kind) => {
    const [[x1, y1], [x2, y2]] = [project(a), project(b)];
    add("line", { x1, y1, x2, y2, class: kind });
  };
  const SHAPES = {
    circle: (s) => `M${-s} 0a${s} ${s} 0 1 0 ${2 * s} 0a${s} ${s} 0 1 0 ${-2 * s} 0z`,
    diamond: (s) => `M0 ${-s}L${s} 0L0 ${s}L${-s} 0z`,
    square: (s) => `M${-s} ${-s}h${2 * s}v${2 * s}h${-2 * s}z`,
    "triangle-up": (s) => `M0 ${-s}L${s} ${s}H${-s}z`,
    "triangle-down": (s) => `M0 ${s}L${s} ${-s}H${-s}z`,
    cross: (s) => `M${-s} 0H${s}M0 ${-s}V${s}`,
    "x-thin": (s) => `M${-s} ${-s}L${s} ${s}M${s} ${-s}L${-s} ${s}`,
    star: (s) => `M${[...Array(10)].map((_, i) => { const r = i % 2 ? s * 0.45 : s * 1.15, t = (i * Math.PI) / 5; return `${(r * Math.sin(t)).toFixed(2)} ${(-r * Math.cos(t)).toFixed(2)}`; }).join("L")}z`,
  };

  function scales(axes) {
    return axes.map((axis) => {
      const place = (value) => (axis.isLog ? Math.log10(value) : value);
      const values = [...explorer.symbols.keys()].flatMap((group) => numbers.members[group] ?? [])
        .map((key) => explorer.drawable(key, axis)).filter((value) => value !== null);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const span = place(high) - place(low) || 1;
      return { low, high, of: (value) => (place(value) - place(low)) / span };
    });
  }

  function draw() {
    svg.replaceChildren();
    const axes = [now.x, now.z, now.y]; // two across the floor, the one that was up stays up
    const found = scales(axes);
    for (const [a, b] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      line([a, b, 0], [a, b, 1], "edge");
      for (const level of [0, 1]) if (a === b) {
        line([a, b, level], [1 - a, b, level], level ? "edge" : "axis");
        line([a, b, level], [a, 1 - b, level], level ? "edge" : "axis");
      }
    }
    // each axis is named at the edge of the cube that is nearest to the reader, the upright one at the left
    const corners = [[0, 0], [0, 1], [1, 0], [1, 1]];
    const nearest = (places, order) => places.map((place) => [place, project(place)]).sort((a, b) => order(a[1], b[1]))[0][1];
    const lowest = (a, b) => b[1] - a[1], leftmost = (a, b) => a[0] - b[0];
    const places = [
      nearest([[0.5, 0, 0], [0.5, 1, 0], [0.5, 0, 1], [0.5, 1, 1]], lowest),
      nearest([[0, 0.5, 0], [1, 0.5, 0], [0, 0.5, 1], [1, 0.5, 1]], lowest),
      nearest(corners.map((corner) => [...corner, 0.5]), leftmost),
    ];
    axes.forEach((axis, i) => {
      const [x, y] = places[i], aside = i === 2 ? -8 : x < HALF ? -10 : 10, below = i === 2 ? 0 : 24;
      const anchor = aside < 0 ? "end" : "start";
      const range = [found[i].low, found[i].high].map((value) => numbers.text(axis.name, value)).join(" to ");
      add("text", { x: x + aside, y: y + below, "text-anchor": anchor }, numbers.axes.get(axis.name).label.slice(0, 40));
      add("text", { x: x + aside, y: y + below + 15, "text-anchor": anchor, class: "quiet" }, range);
    });
    const points = [];
    for (const [group, trace] of explorer.symbols) {
      if (!trace.marker?.symbol) continue;
      for (const key of numbers.members[group] ?? []) {
        const values = axes.map((axis) => explorer.drawable(key, axis));
        if (!values.includes(null)) points.push([key, group, trace.marker, values.map((value, i) => found[i].of(value))]);
      }
    }
    points.sort((a, b) => project(b[3])[2] - project(a[3])[2]);
    for (const [key, group, marker, place] of points) {
      const [x, y] = project(place);
      if (group === "front") line(place, [place[0], place[1], 0], "drop");
      const open = /open|cross|thin/.test(marker.symbol);
      const shape = SHAPES[marker.symbol.replace("-open", "")] ?? SHAPES.diamond;
      const ink = marker.color === "#000000" ? "var(--chart-ink)" : marker.color;
      const mark = add("path", {
        d: shape(marker.size / 2), transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
        style: open ? `fill: none; stroke: ${ink}; stroke-width: 2` : `fill: ${ink}`,
      });
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${numbers.title(key)}: ${axes.map(({ name }) => numbers.text(name, numbers.value(key, name))).join(", ")}`;
      mark.append(title);
      if (typeof key === "number") mark.addEventListener("click", () => reveal.trial(key, numbers.onFront.has(key)));
    }
  }

  function turn(aside, upward) {
    yaw += aside;
    pitch = Math.max(-1.5, Math.min(1.5, pitch + upward));
    draw();
  }
  svg.addEventListener("pointermove", ({ buttons, movementX, movementY }) => {
    if (buttons & 1) turn(movementX / 120, movementY / 120);
  });
  const KEYS = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, -0.12], ArrowDown: [0, 0.12] };
  svg.addEventListener("keydown", (event) => {
    if (!KEYS[event.key]) return;
    event.preventDefault();
    turn(...KEYS[event.key]);
  });
  explorer.watch((state) => {
    now = state;
    figure.hidden = axisZ.hidden = !state.space;
    if (state.space) draw();
  });
  return { turn };
})();

"use strict";
// Steps through the frames of a network: its graph on the left, the eigenvalues at its nodes on the right.
// Everything is made by createElement and textContent, so that no string of a record can become markup.
for (const box of document.querySelectorAll(".stepper")) {
  const network = JSON.parse(box.querySelector("script").textContent);
  const frames = network.frames, last = frames.length - 1;
  const views = box.querySelector(".views"), [graph, plane] = views.querySelectorAll("svg");
  let at = 0, timer = null;

  const element = (name, text, parent) => {
    const made = document.createElement(name);
    made.textContent = text;
    parent.append(made);
    return made;
  };
  const shape = (name, attributes, parent, text) => {
    const made = document.createElementNS(graph.namespaceURI, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    parent.append(made);
    return made;
  };
  const colour = (i) => "var(--s" + (i % 7) + ")";
  const extent = (values, margin) => {
    const low = Math.min(...values), high = Math.max(...values), room = (high - low || 1) * margin;
    return [low - room, high + room];
  };
  const scale = ([low, high], from, to) => (value) => from + (value - low) / (high - low) * (to - from);
  const shown = (value) => value.toFixed(2).replace("-", "\u2212");

  // --- controls ---
  const controls = element("div", "", box);
  controls.className = "controls";
  const button = (text, action) => {
    const made = element("button", text, controls);
    made.type = "button";
    made.addEventListener("click", action);
    return made;
  };
  const changed = (k) => k > 0 && frames[k].weights.some((w, e) => w === null && frames[k - 1].weights[e] !== null);
  const next = (from) => { for (let k = from + 1; k <= last; k++) if (changed(k)) return k; return null; };
  const back = button("◀ step", () => { stop(); show(at - 1); });
  const play = button("▶ play", () => (timer ? stop() : start()));
  const forth = button("step ▶", () => { stop(); show(at + 1); });
  const removal = button("next removal", () => { stop(); show(next(at)); });
  const slider = element("input", "", controls);
  Object.assign(slider, { type: "range", min: 0, max: last, value: 0 });
  slider.setAttribute("aria-label", "frame");
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  const words = element("output", "", box);
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "▶ play"; };
  const start = () => {
    if (at === last) show(0);
    play.textContent = "❚❚ pause";
    timer = setInterval(() => (at < last ? show(at + 1) : stop()), 250);
  };

  // --- the graph ---
  const x = scale(extent(network.nodes.map((n) => n.x), 0.12), 10, 410);
  const y = scale(extent(network.nodes.map((n) => n.y), 0.16), 330, 10);
  const weights = frames.flatMap((f) => f.weights.filter((w) => w !== null).map(Math.abs));
  const largest = Math.max(...weights, 1e-12);
  const edges = network.edges.map(([from, to]) => {
    const a = network.nodes[from], b = network.nodes[to];
    const dx = x(b.x) - x(a.x), dy = y(b.y) - y(a.y), length = Math.hypot(dx, dy) || 1;
    const u = dx / length, v = dy / length, bend = 0.1 * length;
    const start = [x(a.x) + 20 * u - 5 * v, y(a.y) + 20 * v + 5 * u];
    const tip = [x(b.x) - 24 * u - 5 * v, y(b.y) - 24 * v + 5 * u];
    const middle = [(start[0] + tip[0]) / 2 - bend * v, (start[1] + tip[1]) / 2 + bend * u];
    const group = shape("g", {}, graph);
    const line = shape("path", { d: `M${start} Q${middle} ${tip}`, fill: "none" }, group);
    const p = tip[0] - middle[0], q = tip[1] - middle[1], r = Math.hypot(p, q) || 1;
    const head = [[p / r * 5, q / r * 5], [-q / r * 4 - p / r * 4, p / r * 4 - q / r * 4], [q / r * 4 - p / r * 4, -p / r * 4 - q / r * 4]];
    const arrow = shape("path", { d: "M" + head.map(([i, j]) => [tip[0] + i, tip[1] + j]).join("L") + "Z" }, group);
    return { line, arrow, title: shape("title", {}, group, ""), name: a.label + " \u2192 " + b.label };
  });
  const circles = network.nodes.map((node, i) => {
    shape("circle", { cx: x(node.x), cy: y(node.y), r: 18, fill: "var(--card)" }, graph);
    const circle = shape("circle", { cx: x(node.x), cy: y(node.y), r: 18, fill: colour(i), stroke: "var(--ink)" }, graph);
    shape("text", { x: x(node.x), y: y(node.y) - 1, "text-anchor": "middle", fill: "var(--ink)" }, graph, node.label);
    const value = shape("text", { x: x(node.x), y: y(node.y) + 12, "text-anchor": "middle", fill: "var(--ink)", "font-size": 10 }, graph, "");
    return { circle, value };
  });

  // --- the complex plane ---
  const all = frames.flatMap((f) => f.eigenvalues.flat());
  const re = scale(extent([0, ...all.map((v) => v[0])], 0.08), 40, 410);
  const im = scale(extent([0, ...all.map((v) => v[1])], 0.12), 290, 30);
  shape("path", { d: `M40 ${im(0)}H410M${re(0)} 30V290`, stroke: "var(--line)" }, plane);
  for (const [value, place] of [[all.reduce((m, v) => Math.max(m, v[0]), 0), 0], [all.reduce((m, v) => Math.min(m, v[0]), 0), 0]])
    shape("text", { x: re(value), y: im(0) + 14, "text-anchor": "middle", fill: "var(--quiet)" }, plane, shown(value));
  const top = all.reduce((m, v) => Math.max(m, v[1]), 0);
  if (top > 0) shape("text", { x: re(0) - 4, y: im(top) + 4, "text-anchor": "end", fill: "var(--quiet)" }, plane, shown(top));
  shape("text", { x: 225, y: 20, "text-anchor": "middle", fill: "var(--quiet)" }, plane, "imaginary against real parts of the eigenvalues");
  const spectra = network.nodes.map((node, i) => i).filter((i) => frames.some((f) => f.eigenvalues[i].length));
  spectra.forEach((i, k) => {
    const left = 60 + 90 * (k % 4), down = 312 + 16 * Math.floor(k / 4);
    shape("circle", { cx: left, cy: down - 4, r: 5, fill: colour(i) }, plane);
    shape("text", { x: left + 10, y: down, fill: "var(--ink)" }, plane, "at " + network.nodes[i].label);
  });
  const points = shape("g", {}, plane);

  const show = (k) => {
    if (k === null || k < 0 || k > last) return;
    at = k;
    const frame = frames[k];
    edges.forEach((edge, e) => {
      const weight = frame.weights[e], going = weight === null && k > 0 && frames[k - 1].weights[e] !== null;
      const ink = going ? "var(--ink)" : weight === null ? "var(--line)" : weight < 0 ? "var(--s3)" : "var(--s0)";
      edge.line.setAttribute("stroke", ink);
      edge.arrow.setAttribute("fill", ink);
      edge.line.setAttribute("stroke-width", weight === null ? (going ? 3 : 1) : 0.6 + 4.4 * Math.abs(weight) / largest);
      edge.line.setAttribute("stroke-dasharray", weight === null ? "3 4" : "none");
      edge.title.textContent = edge.name + ": " + (weight === null ? "removed" : shown(weight));
    });
    circles.forEach(({ circle, value }, i) => {
      circle.setAttribute("fill-opacity", 0.08 + 0.62 * Math.min(Math.max(frame.values[i], 0), 1));
      value.textContent = shown(frame.values[i]);
    });
    points.replaceChildren();
    for (const i of spectra)
      for (const [a, b] of frame.eigenvalues[i])
        shape("circle", { cx: re(a), cy: im(b), r: 5, fill: colour(i), "fill-opacity": 0.75, stroke: "var(--card)" }, points);
    slider.value = k;
    words.textContent = "Frame " + (k + 1) + " of " + (last + 1) + ": " + frame.label + (frame.note ? ". " + frame.note : "");
    back.disabled = k === 0;
    forth.disabled = k === last;
    removal.disabled = next(k) === null;
  };
  box.hidden = false;
  show(next(0) ?? last);  // before the first update there is nothing to see
}

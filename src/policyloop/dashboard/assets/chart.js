// Lines: a small SVG chart with its range and newest value, and the trail of a robot's last commands.

import { make, number, whole } from "./dom.js";

const WIDTH = 320, HEIGHT = 120, LEFT = 40, RIGHT = 6, TOP = 8, BOTTOM = 18;

function shape(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

export function chart({ title, unit, points }) {
  const [lastStep, lastValue] = points[points.length - 1];
  const values = points.map((point) => point[1]);
  const head = make("figcaption", {}, make("span", {}, title), make("strong", {}, number(lastValue)), make("small", {}, unit === "1" ? "" : unit));
  if (points.length < 2) return make("figure", { class: "chart" }, head);
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) { low -= 1; high += 1; }
  const first = points[0][0], span = Math.max(1, lastStep - first);
  const at = ([step, value]) => [
    LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / span,
    TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low),
  ];
  const line = points.map((point) => at(point).map((c) => c.toFixed(1)).join(",")).join(" ");
  const svg = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${title}: ${number(lastValue)} after ${whole(lastStep)} steps, between ${number(Math.min(...values))} and ${number(Math.max(...values))}`,
  });
  const [x, y] = at(points[points.length - 1]);
  svg.append(
    shape("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM, class: "axis" }),
    shape("polyline", { points: line, class: "line" }),
    shape("circle", { cx: x, cy: y, r: 3.5, class: "dot" }),
    shape("text", { x: LEFT, y: HEIGHT - 4 }, whole(first)),
    shape("text", { x: WIDTH - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, `${whole(lastStep)} steps`),
    shape("text", { x: LEFT - 5, y: TOP + 4, "text-anchor": "end" }, number(high)),
    shape("text", { x: LEFT - 5, y: HEIGHT - BOTTOM, "text-anchor": "end" }, number(low)),
  );
  return make("figure", { class: "chart" }, head, svg);
}

export function drawTrail(canvas, points, action, index, style) {
  const scale = Math.min(2, window.devicePixelRatio || 1);
  const width = canvas.clientWidth * scale, height = canvas.clientHeight * scale;
  if (!width) return;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, width, height);
  const y = (value) => height - 2 * scale - (height - 4 * scale) * (value - action.low) / (action.high - action.low);
  pen.lineWidth = scale;
  pen.strokeStyle = style.rule;
  pen.beginPath();
  pen.moveTo(0, y(0));
  pen.lineTo(width, y(0));
  pen.stroke();
  for (const [which, colour, thick] of [[1, style.proposed, 1.5], [2, style.command, 2.5]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = thick * scale;
    pen.beginPath();
    points.forEach((point, i) => {
      pen.lineTo(width * (i + 300 - points.length) / 299, y(point[which][index]));
    });
    pen.stroke();
  }
}

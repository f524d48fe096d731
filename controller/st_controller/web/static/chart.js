/** One metric over the steps of a run, as a drawing that can be read with pointer and keys. */

import { element } from "./elements.js";
import { count } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [600, 160];

/** The chart of `points`: `{ step, value, attempt }`, by step; `isLog`: by powers of ten. */
export function drawChart(name, points, isLog) {
  const scale = scaleOf(points, isLog);
  const figure = element("figure", "card chart");
  const caption = element("figcaption");
  const said = element("output", "quiet");
  caption.append(element("strong", "", name), said);
  const svg = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    tabindex: 0,
    "aria-label": summary(name, points),
  });
  svg.append(...resumes(points, scale), line(points, scale));
  const mark = shape("line", { class: "mark", y1: 0, y2: HEIGHT, visibility: "hidden" });
  svg.append(mark);
  const show = (place) => {
    const at = scale.x(points[place]);
    mark.setAttribute("x1", at);
    mark.setAttribute("x2", at);
    said.textContent = words(points[place]);
  };
  said.textContent = words(points.at(-1));
  followPointer(svg, points, scale, show, mark);
  followKeys(svg, points, show, mark);
  figure.append(caption, svg, ends(points, scale));
  return figure;
}

export const isPositive = (points) => points.every(({ value }) => value > 0);

const words = ({ step, value }) => `${written(value)} at step ${count(step)}`;

function summary(name, points) {
  const values = points.map(({ value }) => value);
  const [first, last] = [points[0], points.at(-1)];
  return (
    `${name}, steps ${count(first.step)} to ${count(last.step)}: from ${written(first.value)} ` +
    `to ${written(last.value)}, between ${written(Math.min(...values))} and ` +
    written(Math.max(...values))
  );
}

/** A number in at most five digits. */
function written(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return value.toLocaleString(undefined, { maximumSignificantDigits: 5 });
}

function scaleOf(points, isLog) {
  const of = isLog ? Math.log10 : (value) => value;
  const values = points.map(({ value }) => of(value));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [from, to] = [points[0].step, points.at(-1).step];
  return {
    x: ({ step }) => (to > from ? ((step - from) / (to - from)) * WIDTH : WIDTH / 2),
    y: ({ value }) =>
      // Halved first: the range of all floats is more than the largest float.
      high > low ? HEIGHT - ((of(value) / 2 - low / 2) / (high / 2 - low / 2)) * HEIGHT : HEIGHT / 2,
    low: isLog ? 10 ** low : low,
    high: isLog ? 10 ** high : high,
  };
}

function line(points, { x, y }) {
  const path = points.map((point) => `${x(point).toFixed(1)},${y(point).toFixed(1)}`);
  // A single point is a line of no length, which round ends make a dot.
  const d = `M${path.join("L")}${path.length === 1 ? "h0" : ""}`;
  return shape("path", { class: "curve", d });
}

/** A line wherever another attempt goes on. */
function resumes(points, { x }) {
  const first = points.filter((point, i) => i > 0 && point.attempt !== points[i - 1].attempt);
  return first.map((point) => {
    const made = shape("line", { class: "resume", x1: x(point), x2: x(point), y1: 0, y2: HEIGHT });
    const title = shape("title", {});
    title.textContent = `attempt ${point.attempt} goes on from step ${point.step}`;
    made.append(title);
    return made;
  });
}

function ends(points, { low, high }) {
  const made = element("p", "quiet ends");
  made.setAttribute("aria-hidden", "true");
  made.append(
    element("span", "", `step ${count(points[0].step)}`),
    element("span", "", `${written(low)} to ${written(high)}`),
    element("span", "", `step ${count(points.at(-1).step)}`),
  );
  return made;
}

function followPointer(svg, points, scale, show, mark) {
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const far = points.map((point) => Math.abs(scale.x(point) - at));
    mark.setAttribute("visibility", "visible");
    show(far.indexOf(Math.min(...far)));
  });
  svg.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    show(points.length - 1);
  });
}

function followKeys(svg, points, show, mark) {
  let place = points.length - 1;
  const moves = { ArrowLeft: () => place - 1, ArrowRight: () => place + 1, Home: () => 0 };
  moves.End = () => points.length - 1;
  svg.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    event.preventDefault();
    place = Math.min(Math.max(moves[event.key](), 0), points.length - 1);
    mark.setAttribute("visibility", "visible");
    show(place);
  });
}

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A noise schedule as points that are dragged up and down: log(sigma) over the steps. A point stays
// between its neighbours, so that the levels fall.

const WIDTH = 640;
const HEIGHT = 240;
const LEFT = 46;
const EDGE = 14;
const ROOM = HEIGHT - 2 * EDGE - 12;
const APART = 1.001; // least quotient of two levels
const STEP = 1.05; // of an arrow key; ten of them with Shift
const WAYS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };
const SVG = "http://www.w3.org/2000/svg";
const drawings = new WeakMap(); // element -> the levels that were drawn in it

function part(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  return node;
}

// Where a level lies, and which level lies at a height.
function scaleOf({ high, low }, count) {
  return {
    x: (number) => LEFT + (number / Math.max(1, count - 1)) * (WIDTH - LEFT - EDGE),
    y: (level) => EDGE + (Math.log(high / level) / Math.log(high / low)) * ROOM,
    level: (height) => high * (low / high) ** ((height - EDGE) / ROOM),
  };
}

function frame({ high, low }, scale) {
  const svg = part("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group",
    "aria-label": "Noise levels of the steps" });
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += 1) {
    const y = scale.y(10 ** power);
    svg.append(part("line", { class: "grid", x1: LEFT, x2: WIDTH - EDGE, y1: y, y2: y }),
      part("text", { class: "label", x: 4, y: y + 4 }, `${10 ** power}`.slice(0, 6)));
  }
  return svg;
}

// Let a point be moved by a pointer and by keys; `move(level)` moves it, `tell()` says it is done.
function movable(point, svg, scale, { now, move, tell }) {
  point.addEventListener("pointerdown", (event) => point.setPointerCapture(event.pointerId));
  point.addEventListener("pointermove", (event) => {
    if (!point.hasPointerCapture(event.pointerId)) return;
    const box = svg.getBoundingClientRect();
    move(scale.level(((event.clientY - box.top) / box.height) * HEIGHT));
  });
  point.addEventListener("pointerup", tell);
  point.addEventListener("keydown", (event) => {
    const way = WAYS[event.key];
    if (!way) return;
    event.preventDefault();
    move(now() * STEP ** (way * (event.shiftKey ? 10 : 1)));
  });
  point.addEventListener("keyup", (event) => {
    if (event.key in WAYS) tell();
  });
}

function levelsOf(parentElement, data) {
  if (drawings.get(parentElement)?.length !== data.levels.length) {
    drawings.set(parentElement, [...data.levels]);
  }
  return drawings.get(parentElement);
}

export default function show({ data, parentElement, setStateValue }) {
  const place = parentElement.querySelector(".editor");
  const levels = levelsOf(parentElement, data);
  const scale = scaleOf(data, levels.length);
  const svg = frame(data, scale);
  const line = part("polyline", { class: "line" });
  const points = levels.map((_, number) => part("circle", { class: "point", r: 8, tabindex: 0,
    role: "slider", "aria-label": `sigma of step ${number + 1}`, "aria-valuemin": data.low,
    "aria-valuemax": data.high, cx: scale.x(number) }));
  svg.append(line, ...points);
  const draw = () => {
    line.setAttribute("points", levels.map((v, n) => `${scale.x(n)},${scale.y(v)}`).join(" "));
    points.forEach((point, number) => {
      point.setAttribute("cy", scale.y(levels[number]));
      point.setAttribute("aria-valuenow", levels[number].toPrecision(4));
    });
  };
  const tell = () => setStateValue("levels", [...levels]);
  points.forEach((point, number) => movable(point, svg, scale, {
    now: () => levels[number],
    tell,
    move(value) {
      const above = number ? levels[number - 1] / APART : data.high;
      const below = number + 1 < levels.length ? levels[number + 1] * APART : data.low;
      levels[number] = Math.min(above, Math.max(below, value));
      draw();
    },
  }));
  draw();
  const focused = [...place.querySelectorAll(".point")].indexOf(
    place.getRootNode().activeElement);
  place.replaceChildren(svg);
  if (focused >= 0) points[focused].focus();
}

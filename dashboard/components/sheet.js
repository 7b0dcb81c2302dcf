const states = new WeakMap();
const GAP = 10;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function heading(scope, text) {
  const th = element("th");
  th.scope = scope;
  th.title = text;
  th.append(element("span", "clip", text));
  return th;
}

function axisName(arrow, name) {
  const span = element("span", "axis", `${arrow} `);
  name.split("_").forEach((part, number) => {
    if (number) span.append("_", document.createElement("wbr"));
    span.append(part);
  });
  return span;
}

// The table is built once per shape; afterwards only cells change, so scrolling and focus stay.
function build(state) {
  const { data, head, body } = state;
  const top = element("tr");
  if (data.row_labels.length) {
    const corner = element("th", "corner");
    corner.append(axisName("↓", data.row_axis), axisName("→", data.column_axis));
    top.append(corner);
  }
  top.append(...data.column_labels.map((text) => heading("col", text)));
  head.replaceChildren(top);
  const rows = data.row_labels.length ? data.row_labels : [null];
  state.cells = [];
  body.replaceChildren(...rows.map((text) => {
    const row = element("tr");
    if (text !== null) row.append(heading("row", text));
    for (let x = 0; x < data.column_labels.length; x += 1) {
      const number = state.cells.length;
      const td = element("td");
      const cell = element("button", "cell");
      const caption = element("div", "caption");
      cell.type = "button";
      cell.onclick = () => open(state, number);
      cell.onkeydown = (event) => move(state, number, event);
      td.append(cell, caption);
      row.append(td);
      state.cells.push({ cell, caption, drawn: "" });
    }
    return row;
  }));
}

function open(state, number) {
  const { run_id } = state.data.frames[number];
  if (run_id !== null) state.setTriggerValue("open", run_id);
}

function move(state, number, event) {
  const columns = state.data.column_labels.length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  if (!step) return;
  event.preventDefault();
  state.cells[number + step]?.cell.focus();
}

function drawCell({ cell, caption }, frame) {
  cell.dataset.status = frame.status;
  cell.setAttribute("aria-label", frame.label);
  cell.disabled = frame.run_id === null;
  if (frame.run_id === null) delete cell.dataset.run;
  else cell.dataset.run = frame.run_id;
  const content = element(frame.url ? "img" : "span", frame.url ? "" : "words");
  if (frame.url) {
    content.src = frame.url;
    content.alt = frame.label;
  } else {
    content.textContent = frame.error || frame.status;
    cell.title = frame.error;
  }
  cell.replaceChildren(content);
  caption.replaceChildren(element("span", "", frame.time), element("span", "", frame.nfe));
}

// Factors of a picture's own pixels: whole ones where it grows, halves where it shrinks.
function scales(data, density) {
  const all = [];
  for (let f = 1 / 8; f < 1; f *= 2) all.push(f);
  for (let f = 1; f <= 32; f += 1) all.push(f);
  const longest = Math.max(data.width, data.height);
  return all.map((f) => f / density).filter((f) => longest * f >= 48 && longest * f <= 1100);
}

function resize(state) {
  const { data, box, cells } = state;
  const density = window.devicePixelRatio || 1;
  const choices = scales(data, density);
  if (!box.clientWidth || !choices.length) return;
  if (state.scale === null) {
    const head = data.row_labels.length ? state.body.querySelector("th").offsetWidth : 0;
    const room = (box.clientWidth - head) / data.column_labels.length - GAP;
    const least = 96; // below that the table scrolls instead
    const fitting = choices.filter((f) => data.width * f <= room && data.height * f <= 640);
    state.shown = fitting.length ? fitting[fitting.length - 1] : choices[0];
    if (data.width * state.shown < least) {
      state.shown = choices.find((f) => data.width * f >= least) ?? state.shown;
    }
  } else {
    state.shown = state.scale;
  }
  for (const { cell, caption } of cells) {
    caption.style.width = `${data.width * state.shown}px`;
    cell.style.width = `${data.width * state.shown}px`;
    cell.style.height = `${data.height * state.shown}px`;
    cell.style.imageRendering = state.shown * density >= 1 ? "pixelated" : "auto";
  }
}

function zoom(state, direction) {
  const choices = scales(state.data, window.devicePixelRatio || 1);
  const longest = Math.max(state.data.width, state.data.height);
  const large = choices.filter((f) => direction > 0
    ? longest * f >= longest * state.shown * 1.2 : longest * f <= longest * state.shown / 1.2);
  const next = direction > 0 ? large[0] : large[large.length - 1];
  if (next !== undefined) {
    state.scale = next;
    resize(state);
  }
}

function draw(state) {
  const { data } = state;
  const shape = JSON.stringify([data.row_axis, data.column_axis, data.row_labels, data.column_labels]);
  if (shape !== state.shape) {
    state.shape = shape;
    build(state);
  }
  data.frames.forEach((frame, number) => {
    const signature = JSON.stringify(frame);
    if (state.cells[number].drawn !== signature) {
      state.cells[number].drawn = signature;
      drawCell(state.cells[number], frame);
    }
  });
  resize(state);
}

export default function ({ data, parentElement, setTriggerValue }) {
  let state = states.get(parentElement);
  if (!state) {
    const box = parentElement.querySelector(".table");
    state = { box, head: box.querySelector("thead"), body: box.querySelector("tbody"), scale: null };
    parentElement.querySelector(".less").onclick = () => zoom(state, -1);
    parentElement.querySelector(".more").onclick = () => zoom(state, 1);
    parentElement.querySelector(".fit").onclick = () => { state.scale = null; resize(state); };
    state.observer = new ResizeObserver(() => resize(state));
    state.observer.observe(box);
    states.set(parentElement, state);
  }
  Object.assign(state, { data, setTriggerValue });
  draw(state);
  return () => { state.observer.disconnect(); states.delete(parentElement); };
}

// A picture and what was made of it under a slider, with a strip of all tries.

import { fitInto, forget, showStrip, stateOf } from "./common.js";

function fit({ room, pair, data }) {
  fitInto(room, pair, pair.querySelectorAll("img"), data);
}

function draw(state) {
  const { pair, data, strip } = state;
  const index = Math.min(state.index, data.tries.length - 1);
  const { url, alt } = data.tries[index];
  for (const [name, src] of [["before", data.before], ["after", url]]) {
    const image = pair.querySelector(`.${name}`);
    if (image.getAttribute("src") !== src) image.src = src;
  }
  pair.querySelector(".after").alt = alt;
  fit(state);
  showStrip(strip, data.tries, index, (number) => {
    state.index = number;
    state.setStateValue("index", number);
    draw(state);
  });
}

export default function show({ data, parentElement, setStateValue }) {
  const state = stateOf(parentElement, () => {
    const [room, pair, strip, range] = [".room", ".pair", ".strip", "input"]
      .map((name) => parentElement.querySelector(name));
    const made = { room, pair, strip, index: 0 };
    range.addEventListener("input", () => {
      pair.style.setProperty("--at", `${range.value / 10}%`);
    });
    made.observer = new ResizeObserver(() => made.data && fit(made));
    made.observer.observe(room);
    return made;
  });
  Object.assign(state, { data, setStateValue });
  draw(state);
  return () => forget(parentElement);
}

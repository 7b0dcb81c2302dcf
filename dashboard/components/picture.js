// One picture, large, with a strip of its siblings.

import { h } from "../../pipelines/sheet/viewer/dom.js";
import { fitInto, forget, showStrip, stateOf } from "./common.js";

function fit({ stage, picture, size }) {
  if (picture) fitInto(stage, picture, [picture], size);
}

function draw(state) {
  const { data, stage } = state;
  const index = Math.min(state.index, data.pictures.length - 1);
  const { url, alt, waiting, width, height } = data.pictures[index];
  const tag = url ? "img" : "div";
  if (state.picture?.localName !== tag) {
    state.picture = h(tag);
    stage.replaceChildren(state.picture);
  }
  if (url) {
    if (state.picture.getAttribute("src") !== url) state.picture.src = url;
    state.picture.alt = alt;
  } else {
    state.picture.className = waiting ? "empty waiting" : "empty";
    state.picture.setAttribute("role", "img");
    state.picture.setAttribute("aria-label", alt);
  }
  state.size = { width, height, share: data.share };
  fit(state);
  showStrip(state.strip, data.pictures, index, (number) => {
    state.index = number;
    state.setStateValue("index", number);
    draw(state);
  });
}

export default function show({ data, parentElement, setStateValue }) {
  const state = stateOf(parentElement, () => {
    const [stage, strip] = [".stage", ".strip"].map((name) => parentElement.querySelector(name));
    const made = { stage, strip, index: 0 };
    made.observer = new ResizeObserver(() => fit(made));
    made.observer.observe(stage);
    return made;
  });
  const first = !state.data;
  Object.assign(state, { data, setStateValue });
  draw(state);
  // On a phone the picture lies far below the button that started it.
  if (first && data.pictures[0].waiting && window.innerWidth <= 640) {
    state.stage.scrollIntoView({ behavior: "smooth", block: "center" });
  }
  return () => forget(parentElement);
}

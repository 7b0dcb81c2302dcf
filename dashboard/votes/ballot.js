// A ballot: pictures side by side, or one above the other where they are larger so. A click on one
// is the answer; keys and buttons do the rest.

import { h } from "../../pipelines/sheet/viewer/dom.js";
import { fittingScale, isSharp } from "../../pipelines/sheet/viewer/sizes.js";
import { forget, stateOf } from "../components/common.js";

const GAP = 16;
const SOONEST = 300; // ms after the pictures are there: what comes before is a double click
const PATIENCE = 6000; // ms until an answer that nobody heard may be sent again
const FOUR = ["first", "second", "third", "fourth"];
const NAMES = {
  2: { row: ["left", "right"], column: ["upper", "lower"] },
  4: { row: FOUR, column: FOUR },
};
const KEYS = { ArrowLeft: "1", ArrowUp: "1", ArrowRight: "2", ArrowDown: "2", 1: "1", 2: "2",
  3: "3", 4: "4", " ": "tie", t: "tie", s: "skip", Backspace: "back" };

// How many columns make the pictures largest, and at what scale.
function arrangement({ width, height, urls }, room, tall) {
  const choices = (urls.length === 2 ? [2, 1] : [4, 2, 1]).map((columns) => {
    const rows = urls.length / columns;
    const scale = fittingScale(width, height, Math.max(40, room / columns - GAP),
      Math.max(60, tall / rows - GAP));
    return { columns, scale };
  });
  return choices.reduce((best, other) => (other.scale > best.scale * 1.05 ? other : best));
}

function fit(state) {
  const { data, box, pictures } = state;
  if (!pictures || !box.clientWidth) return;
  const others = [...box.children].filter((node) => node !== pictures)
    .reduce((sum, node) => sum + node.offsetHeight + 12, 40);
  const { columns, scale } = arrangement(data, box.clientWidth, window.innerHeight - others);
  pictures.style.gridTemplateColumns = `repeat(${columns}, auto)`;
  const names = NAMES[data.urls.length][columns === 1 ? "column" : "row"];
  for (const [place, button] of [...pictures.children].entries()) {
    const image = button.firstChild;
    image.style.width = `${data.width * scale}px`;
    image.style.height = `${data.height * scale}px`;
    image.style.imageRendering = isSharp(scale) ? "pixelated" : "auto";
    image.alt = `The ${names[place]} picture`;
    button.setAttribute("aria-label", `Choose the ${names[place]} picture`);
  }
}

function ready({ pictures, shown, sent, data }) {
  return sent !== data.ballot && shown !== null && performance.now() - shown > SOONEST
    && [...pictures.children].every((button) => button.firstChild.complete);
}

function give(state, answer) {
  const { data, box, pictures } = state;
  const place = Number(answer);
  if (!ready(state) || place > data.urls.length || (answer === "back" && data.number < 2)) return;
  state.sent = data.ballot;
  box.classList.add("busy");
  pictures.children[place - 1]?.setAttribute("aria-pressed", "true");
  state.setTriggerValue("answer", { ballot: data.ballot, answer });
  setTimeout(() => {
    if (state.sent !== data.ballot || state.data.ballot !== data.ballot) return;
    state.sent = null;
    box.classList.remove("busy");
  }, PATIENCE);
}

function picture(state, url, place) {
  const image = h("img", { src: url, alt: "", draggable: "false", onload: () => {
    if ([...state.pictures.children].every((button) => button.firstChild.complete)) {
      state.shown = performance.now();
    }
  } });
  return h("button", { onclick: () => give(state, String(place + 1)) }, image);
}

function action(state, text, key, answer, disabled = false) {
  return h("button", { onclick: () => give(state, answer), disabled }, text, h("kbd", null, key));
}

function draw(state) {
  const { data, box } = state;
  const tie = data.urls.length === 2 ? "Both the same" : "No best one";
  state.shown = null;
  state.sent = null;
  state.pictures = h("div.pictures", { role: "group", "aria-label": "Pictures" });
  state.pictures.append(...data.urls.map((url, place) => picture(state, url, place)));
  const done = h("i");
  done.style.width = `${(100 * (data.number - 1)) / data.total}%`;
  box.classList.remove("busy");
  box.replaceChildren(
    h("h2", null, data.question),
    ...(data.prompt ? [h("p.prompt", null, data.prompt)] : []),
    state.pictures,
    h("div.actions", null, action(state, tie, "space", "tie"), action(state, "Skip", "S", "skip"),
      action(state, "Back", "⌫", "back", data.number < 2)),
    h("div.progress", { role: "status" }, h("div", null, done), `${data.number} of ${data.total}`,
      h("span.keys", null, data.urls.length === 2 ? "keys: ← and →" : "keys: 1 to 4")),
  );
  fit(state);
}

function listen(state) {
  const onKey = (event) => {
    const answer = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const within = event.composedPath()[0];
    // A button that has the focus is pressed by the space bar, as everywhere.
    const taken = within?.matches?.(event.key === " " ? "button, input" : "input, textarea");
    if (!answer || event.repeat || event.ctrlKey || event.metaKey || event.altKey || taken) return;
    event.preventDefault();
    give(state, answer);
  };
  window.addEventListener("keydown", onKey);
  const onSize = () => fit(state);
  window.addEventListener("resize", onSize);
  state.observer = new ResizeObserver(onSize);
  state.observer.observe(state.box);
  return () => {
    window.removeEventListener("keydown", onKey);
    window.removeEventListener("resize", onSize);
  };
}

export default function show({ data, parentElement, setTriggerValue }) {
  const state = stateOf(parentElement, () => {
    const made = { box: parentElement.querySelector(".ballot"), pictures: null };
    made.stop = listen(made);
    return made;
  });
  Object.assign(state, { data, setTriggerValue });
  draw(state);
  return () => {
    state.stop();
    forget(parentElement);
  };
}

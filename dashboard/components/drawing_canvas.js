// Tells how wide a canvas can be: the width of its column, in steps of 8 pixels. And lets fingers
// draw more than strokes.

const STEP = 8; // smaller changes are no news
const PAUSE = 60; // milliseconds after the last change

// streamlit-drawable-canvas starts a shape or a point where the `button` of the event is 0. A touch
// event has no `button`, so only the brush worked with a finger: its issues 105 and 144, at
// https://github.com/andfanilo/streamlit-drawable-canvas/issues/105
if (globalThis.TouchEvent && !("button" in TouchEvent.prototype)) {
  Object.defineProperty(TouchEvent.prototype, "button", { value: 0 });
}

const observers = new WeakMap();

export default function show({ parentElement, setStateValue }) {
  const node = parentElement.querySelector(".width");
  observers.get(node)?.disconnect();
  let last = 0;
  let timer = 0;
  const tell = () => {
    const width = Math.floor(node.clientWidth / STEP) * STEP;
    if (width <= 0 || width === last) return;
    last = width;
    setStateValue("width", width);
  };
  const observer = new ResizeObserver(() => {
    clearTimeout(timer);
    timer = setTimeout(tell, PAUSE);
  });
  observers.set(node, observer);
  observer.observe(node);
  return () => {
    clearTimeout(timer);
    observer.disconnect();
  };
}

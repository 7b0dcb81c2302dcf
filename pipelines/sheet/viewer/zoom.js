// The part of the pictures that is in view, the same in all cells, and the gestures that move it.

import { clamp } from "./sizes.js";

const LARGEST_ZOOM = 64;
const STILL = 4; // pixels that a pointer may move before a press is a drag

export class Zoom {
  constructor(onChange) {
    this.onChange = onChange;
    this.scale = 1;
    this.x = 0; // the corner in view, in parts of a picture
    this.y = 0;
    this.dragged = false; // whether the last press moved the pictures: then it clicks nothing
  }

  set(scale, x, y) {
    const close = clamp(scale, 1, LARGEST_ZOOM);
    this.scale = close < 1.01 ? 1 : close;
    const most = 1 - 1 / this.scale;
    this.x = clamp(x, 0, most);
    this.y = clamp(y, 0, most);
    this.onChange();
  }

  reset() {
    this.set(1, 0, 0);
  }

  // Zoom by a factor around a point, given in parts of the frame, that stays where it is.
  by(factor, px = 0.5, py = 0.5) {
    const next = clamp(this.scale * factor, 1, LARGEST_ZOOM);
    this.set(next, this.x + px / this.scale - px / next, this.y + py / this.scale - py / next);
  }

  // Move the pictures, in parts of the frame.
  pan(dx, dy) {
    this.set(this.scale, this.x - dx / this.scale, this.y - dy / this.scale);
  }

  get transform() {
    const { scale, x, y } = this;
    return scale === 1 ? "" : `scale(${scale}) translate(${-x * 100}%, ${-y * 100}%)`;
  }

  get percent() {
    return `${Math.round(this.scale * 100)} %`;
  }
}

// Wheel, drag and pinch on a surface zoom and pan. `frameOf` gives the frame under a target or
// null; with `anyWheel` a wheel zooms without Ctrl or Command too.
export function addGestures(surface, zoom, { frameOf, anyWheel = false, signal }) {
  addWheel(surface, zoom, frameOf, anyWheel);
  const pointers = new Map();
  let frame = null;
  surface.addEventListener("pointerdown", (event) => {
    const target = frameOf(event.target);
    if (!target || event.button > 0) return;
    if (!pointers.size) zoom.dragged = false;
    frame = target.getBoundingClientRect();
    pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  });
  surface.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    if (pointers.size === 1) {
      if (zoom.scale === 1 || (!zoom.dragged && distance(now, before) < STILL)) return;
      if (!zoom.dragged) surface.setPointerCapture(event.pointerId);
      zoom.dragged = true;
      zoom.pan((now.x - before.x) / frame.width, (now.y - before.y) / frame.height);
    } else {
      zoom.dragged = true;
      const [, other] = [...pointers].find(([id]) => id !== event.pointerId);
      pinch(zoom, frame, other, before, now);
    }
    pointers.set(event.pointerId, now);
  });
  const lift = (event) => pointers.delete(event.pointerId);
  surface.addEventListener("pointerup", lift);
  surface.addEventListener("pointercancel", lift);
  window.addEventListener("pointerup", lift, { signal });
}

function addWheel(surface, zoom, frameOf, anyWheel) {
  surface.addEventListener("wheel", (event) => {
    const target = frameOf(event.target);
    if (!target || !(anyWheel || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const rect = target.getBoundingClientRect();
    const amount = clamp(event.deltaY * (event.deltaMode ? 30 : 1), -150, 150);
    zoom.by(Math.exp(-amount / (event.ctrlKey ? 150 : 300)),
      (event.clientX - rect.x) / rect.width, (event.clientY - rect.y) / rect.height);
  }, { passive: false });
}

const distance = (a, b) => Math.hypot(a.x - b.x, a.y - b.y);

// One of two fingers went from `before` to `now`: what was between them stays between them.
export function pinch(zoom, frame, other, before, now) {
  const middle = (p) => [
    ((p.x + other.x) / 2 - frame.x) / frame.width, ((p.y + other.y) / 2 - frame.y) / frame.height];
  const [was, is] = [middle(before), middle(now)];
  zoom.by(Math.max(20, distance(now, other)) / Math.max(20, distance(before, other)), ...was);
  zoom.pan(is[0] - was[0], is[1] - was[1]);
}

// What the components share: pictures as large as fits, and strips of small ones.

import { h } from "../../pipelines/sheet/viewer/dom.js";
import { fittingScale, isSharp } from "../../pipelines/sheet/viewer/sizes.js";

// Make a frame as large as fits into its room and a share of the window's height, for pictures of a
// width and height; `images` are drawn sharp where they grow.
export function fitInto(room, frame, images, { width, height, share }) {
  const available = room.clientWidth - 2;
  if (available <= 0) return;
  const scale = fittingScale(width, height, available, Math.max(256, window.innerHeight * share));
  frame.style.width = `${width * scale}px`;
  frame.style.height = `${height * scale}px`;
  for (const image of images) image.style.imageRendering = isSharp(scale) ? "pixelated" : "auto";
}

// Show the pictures as a strip of buttons, the chosen one pressed; a single one needs no strip.
export function showStrip(strip, pictures, chosen, choose) {
  const many = pictures.length > 1 ? pictures : [];
  strip.replaceChildren(...many.map(({ url, alt, caption }, number) => {
    const pick = () => {
      choose(number);
      strip.children[number]?.focus();
    };
    return h("button", { "aria-pressed": String(number === chosen), onclick: pick },
      url ? h("img", { src: url, alt }) : null, caption);
  }));
}

// The state that a component keeps while it is on the page; `make` makes it at first.
const states = new WeakMap();

export function stateOf(parentElement, make) {
  if (!states.has(parentElement)) states.set(parentElement, make());
  return states.get(parentElement);
}

export function forget(parentElement) {
  states.get(parentElement)?.observer.disconnect();
  states.delete(parentElement);
}

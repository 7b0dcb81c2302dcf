// How far two pictures are apart, pixel by pixel.

import { h } from "./dom.js";

// The amplified difference of two pictures' RGBA bytes, and what it amounts to.
export function difference(one, other, factor) {
  const rgba = new Uint8ClampedArray(one.length);
  let sum = 0;
  let largest = 0;
  let changed = 0;
  for (let i = 0; i < one.length; i += 4) {
    let most = 0;
    for (let c = i; c < i + 3; c += 1) {
      const apart = Math.abs(one[c] - other[c]);
      rgba[c] = apart * factor; // the array holds it to 255
      sum += apart;
      most = Math.max(most, apart);
    }
    rgba[i + 3] = 255;
    largest = Math.max(largest, most);
    changed += most > 0;
  }
  const count = one.length / 4;
  return { rgba, largest, mean: sum / count / 3, changed: changed / count };
}

export function differenceText({ largest, mean, changed }) {
  if (!largest) return "equal in every pixel";
  return `mean ${mean.toFixed(2)}, largest ${largest} of 255; `
    + `${(changed * 100).toFixed(1)} % of the pixels differ`;
}

// The RGBA bytes of a cell's picture, or of the step at a place in its strip, at a size.
export async function readPixels(cell, frame, width, height) {
  const inStrip = frame !== null && cell.strip;
  const image = new Image();
  image.src = inStrip ? cell.strip : cell.picture;
  await image.decode();
  const canvas = h("canvas", { width, height });
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;
  const wide = image.naturalWidth / (inStrip ? cell.steps.length : 1);
  pen.drawImage(image, inStrip ? frame * wide : 0, 0, wide, image.naturalHeight,
    0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}

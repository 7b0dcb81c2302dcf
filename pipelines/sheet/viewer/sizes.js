// How large pictures are drawn. A scale is CSS pixels for one pixel of the picture.

const NARROWEST = 96; // CSS pixels of a cell that is fitted; below that the table scrolls instead
const TALLEST = 640;

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export const density = () => window.devicePixelRatio || 1;

// The scale at which a picture is as large as fits: small ones grow by whole device pixels only,
// large ones shrink smoothly.
export function fittingScale(width, height, room, tall) {
  const scale = Math.min(room / width, tall / height);
  return isSharp(scale) ? Math.floor(scale * density()) / density() : scale;
}

// Whether a picture's pixels are repeated rather than blurred.
export const isSharp = (scale) => scale * density() >= 1;

// The scales that the cells of a sheet can have: whole device pixels or 1/2 ... 1/16 of one.
export function cellScales(width, height) {
  const longest = Math.max(width, height);
  const whole = Array.from({ length: 32 }, (_, i) => i + 1);
  const scales = [1 / 16, 1 / 8, 1 / 4, 1 / 2, ...whole]
    .map((pixels) => pixels / density())
    .filter((scale) => longest * scale >= 32 && longest * scale <= 1100);
  return scales.length ? scales : [NARROWEST / longest];
}

// The largest of them that fits into the room of a column, but never a cell too narrow to see.
export function fittingCellScale(width, height, room) {
  const scales = cellScales(width, height);
  const scale = scales.findLast((s) => width * s <= room && height * s <= TALLEST) ?? scales[0];
  if (width * scale >= NARROWEST) return scale;
  return scales.find((s) => width * s >= NARROWEST) ?? scale;
}

// The next larger (direction 1) or smaller (-1) scale of cells; undefined at the end.
export function nextCellScale(width, height, scale, direction) {
  const scales = cellScales(width, height);
  return direction > 0 ? scales.find((s) => s >= scale * 1.2)
    : scales.findLast((s) => s <= scale / 1.2);
}

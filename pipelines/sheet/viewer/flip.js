// FLIP's map of two pictures: how different they look to a person at 67 pixels per degree
// (Andersson et al. 2020, "FLIP: A Difference Evaluator for Alternating Images"). The names and
// constants are the paper's; where both were measured, the mean is the cell's `flip`.

const PIXELS_PER_DEGREE = 67;
const WHITE = [0.950428545, 1, 1.088900371]; // XYZ of D65
const TO_XYZ = [0.4124, 0.3576, 0.1805, 0.2126, 0.7152, 0.0722, 0.0193, 0.1192, 0.9505];
const TO_RGB = [3.2406, -1.5372, -0.4986, -0.9689, 1.8758, 0.0415, 0.0557, -0.2040, 1.0570];
// Contrast sensitivity of each channel of YCxCz: two Gaussians, [a1, b1, a2, b2].
const SENSITIVITY = [[1, 0.0047, 0, 1e-5], [1, 0.0053, 0, 1e-5], [34.1, 0.04, 13.5, 0.025]];
const QC = 0.7;
const PC = 0.4;
const PT = 0.95;
const FEATURE_DEGREES = 0.082;
// Steps of matplotlib's magma, which the paper shows its maps in.
const MAGMA = [[0, 0, 4], [28, 16, 68], [79, 18, 123], [129, 37, 129], [181, 54, 122],
  [229, 80, 100], [251, 135, 97], [254, 194, 135], [252, 253, 191]];

const times = (m, [x, y, z]) => [m[0] * x + m[1] * y + m[2] * z,
  m[3] * x + m[4] * y + m[5] * z, m[6] * x + m[7] * y + m[8] * z];
const toLinear = (v) => (v > 0.04045 ? ((v + 0.055) / 1.055) ** 2.4 : v / 12.92);
const opponent = (rgb) => {
  const [x, y, z] = times(TO_XYZ, rgb).map((v, i) => v / WHITE[i]);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
};
const fromOpponent = ([luma, cx, cz]) => {
  const y = (luma + 16) / 116;
  const xyz = [cx / 500 + y, y, y - cz / 200].map((v, i) => v * WHITE[i]);
  return times(TO_RGB, xyz).map((v) => Math.min(1, Math.max(0, v)));
};
// L*a*b*, colours damped where it is dark (Hunt).
const perceived = (rgb) => {
  const [x, y, z] = times(TO_XYZ, rgb).map((v, i) => {
    const t = v / WHITE[i];
    return t > (6 / 29) ** 3 ? Math.cbrt(t) : t / (3 * (6 / 29) ** 2) + 4 / 29;
  });
  const light = 116 * y - 16;
  return [light, 0.01 * light * 500 * (x - y), 0.01 * light * 200 * (y - z)];
};
const apart = (a, b) => Math.abs(a[0] - b[0]) + Math.hypot(a[1] - b[1], a[2] - b[2]);
const LARGEST = apart(perceived([0, 1, 0]), perceived([0, 0, 1])) ** QC;

// A channel convolved with one row along x, then another along y; edges are repeated.
function convolved(channel, width, height, along, down) {
  const radius = (along.length - 1) / 2;
  const half = new Float32Array(channel.length);
  const whole = new Float32Array(channel.length);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let sum = 0;
      for (let k = -radius; k <= radius; k += 1) {
        sum += along[k + radius] * channel[y * width + Math.min(width - 1, Math.max(0, x + k))];
      }
      half[y * width + x] = sum;
    }
  }
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      let sum = 0;
      for (let k = -radius; k <= radius; k += 1) {
        sum += down[k + radius] * half[Math.min(height - 1, Math.max(0, y + k)) * width + x];
      }
      whole[y * width + x] = sum;
    }
  }
  return whole;
}

const rowOf = (radius, value) => (
  Float64Array.from({ length: 2 * radius + 1 }, (_, i) => value(i - radius)));
const total = (row) => row.reduce((sum, v) => sum + v, 0);

function filtered(channel, width, height, [a1, b1, a2, b2]) {
  const radius = Math.ceil(3 * Math.sqrt(0.04 / (2 * Math.PI ** 2)) * PIXELS_PER_DEGREE);
  const parts = [[a1, b1], [a2, b2]].filter(([a]) => a).map(([a, b]) => ({
    row: rowOf(radius, (k) => Math.exp(-(((Math.PI * k) / PIXELS_PER_DEGREE) ** 2) / b)),
    weight: a * Math.sqrt(Math.PI / b),
  }));
  const sum = parts.reduce((all, { row, weight }) => all + weight * total(row) ** 2, 0);
  const result = new Float32Array(channel.length);
  for (const { row, weight } of parts) {
    convolved(channel, width, height, row, row).forEach((v, i) => {
      result[i] += (v * weight) / sum;
    });
  }
  return result;
}

// How strong edges and points are in a channel of luminance, 0 to 1.
function features(luminance, width, height) {
  const deviation = 0.5 * FEATURE_DEGREES * PIXELS_PER_DEGREE;
  const radius = Math.ceil(3 * deviation);
  const gauss = rowOf(radius, (k) => Math.exp(-(k ** 2) / (2 * deviation ** 2)));
  const slopes = [
    rowOf(radius, (k) => -k * gauss[k + radius]),
    rowOf(radius, (k) => ((k / deviation) ** 2 - 1) * gauss[k + radius]),
  ];
  return slopes.map((slope) => {
    const positive = total(slope.filter((v) => v > 0)) * total(gauss);
    const negative = -total(slope.filter((v) => v < 0)) * total(gauss);
    const row = slope.map((v) => v / (v > 0 ? positive : negative));
    const across = convolved(luminance, width, height, row, gauss);
    const along = convolved(luminance, width, height, gauss, row);
    return across.map((v, i) => Math.hypot(v, along[i]));
  });
}

function prepared(rgba, width, height) {
  const channels = [0, 1, 2].map(() => new Float32Array(width * height));
  for (let i = 0; i < width * height; i += 1) {
    const rgb = [0, 1, 2].map((c) => toLinear(rgba[4 * i + c] / 255));
    opponent(rgb).forEach((v, c) => { channels[c][i] = v; });
  }
  const seen = channels.map((channel, c) => filtered(channel, width, height, SENSITIVITY[c]));
  return { seen, features: features(channels[0].map((v) => (v + 16) / 116), width, height) };
}

// For each pixel 0 (no difference is seen) to 1, from the RGBA bytes of two pictures of one size.
export function flipMap(one, other, width, height) {
  const [a, b] = [one, other].map((rgba) => prepared(rgba, width, height));
  return Float32Array.from({ length: width * height }, (_, i) => {
    const [left, right] = [a, b].map(({ seen }) => (
      perceived(fromOpponent(seen.map((channel) => channel[i])))));
    const colour = apart(left, right) ** QC;
    const share = colour < PC * LARGEST
      ? (PT / (PC * LARGEST)) * colour
      : PT + ((colour - PC * LARGEST) / (LARGEST - PC * LARGEST)) * (1 - PT);
    const feature = Math.max(...a.features.map((f, k) => Math.abs(f[i] - b.features[k][i])));
    return share ** (1 - Math.sqrt(feature / Math.SQRT2));
  });
}

// The colour of an error from 0 to 1.
export function magma(error) {
  const place = Math.min(1, Math.max(0, error)) * (MAGMA.length - 1);
  const from = Math.min(MAGMA.length - 2, Math.floor(place));
  return MAGMA[from].map((v, c) => v + (MAGMA[from + 1][c] - v) * (place - from));
}

export const magmaScale = `linear-gradient(to right, ${MAGMA.map((c) => `rgb(${c})`)})`;

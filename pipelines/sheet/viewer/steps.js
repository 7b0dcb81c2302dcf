// The denoising steps: one position for all cells, its sliders, and playing.

import { h } from "./dom.js";
import { clamp } from "./sizes.js";

const SECONDS = 3; // that playing takes

// Which of a cell's `count` kept steps stands at a position of a slider with `length` positions.
export function frameAt(position, length, count) {
  return length < 2 ? 0 : Math.round(((position - 1) / (length - 1)) * (count - 1));
}

export class Steps {
  // `onWanted` is called once, before the first step is shown: strips are loaded only then.
  constructor({ onChange, onWanted }) {
    this.onChange = onChange;
    this.onWanted = onWanted;
    this.position = null; // null is the slider's end, the final pictures
    this.length = 1;
    this.totals = new Set(); // of the cells whose steps are kept
    this.bars = [];
  }

  // A slider with its play button; all sliders show the same position.
  addBar(label) {
    const slider = h("input.step", {
      type: "range", min: 1, step: 1, "aria-label": label,
      oninput: () => this.set(Number(slider.value)),
    });
    const text = h("output.steptext");
    const play = h("button.play", { onclick: () => this.play() });
    const bar = { slider, text, play, node: h("div.steps", {}, play, slider, text) };
    this.bars.push(bar);
    this.showPlaying();
    return bar.node;
  }

  update(cells) {
    this.length = Math.max(1, ...cells.map((cell) => cell.steps.length));
    this.totals = new Set(
      cells.filter((cell) => cell.steps.length).map((cell) => cell.total_steps));
    for (const { slider, play } of this.bars) {
      slider.max = this.length;
      slider.disabled = play.disabled = !this.any;
    }
    this.show();
  }

  get any() {
    return this.length > 1;
  }

  set(position) {
    this.position = position >= this.length ? null : clamp(position, 1, this.length);
    if (this.position !== null) {
      this.onWanted?.();
      this.onWanted = null;
    }
    this.show();
  }

  by(count) {
    this.set((this.position ?? this.length) + count);
  }

  show() {
    const at = this.position ?? this.length;
    for (const { slider, text } of this.bars) {
      slider.value = at;
      text.textContent = this.text;
      slider.setAttribute("aria-valuetext", this.text);
    }
    this.onChange();
  }

  get text() {
    if (this.position === null) return this.any ? "final pictures" : "no steps to show yet";
    const [total] = this.totals;
    if (this.totals.size === 1 && total === this.length) {
      return `predicted picture after step ${this.position} of ${total}`;
    }
    const percent = Math.round((this.position / this.length) * 100);
    return `predicted pictures at ${percent} % of the steps`;
  }

  // Which of a cell's kept steps is shown; null: its final picture.
  frameOf(cell) {
    if (this.position === null || !cell.steps.length) return null;
    return frameAt(this.position, this.length, cell.steps.length);
  }

  // Play from here to the final pictures, or stop.
  play() {
    if (this.playing) {
      this.stop();
      return;
    }
    if (this.position === null) this.set(1);
    this.playing = setInterval(() => {
      this.by(1);
      if (this.position === null) this.stop();
    }, Math.max(60, (SECONDS * 1000) / this.length));
    this.showPlaying();
  }

  stop() {
    clearInterval(this.playing);
    this.playing = null;
    this.showPlaying();
  }

  showPlaying() {
    for (const { play } of this.bars) {
      play.textContent = this.playing ? "❚❚" : "▶";
      play.setAttribute("aria-label", this.playing ? "Stop" : "Play the denoising");
    }
  }
}

// The keyboard: which key does what, and the list of them.

import { h } from "./dom.js";

const KEYS = [
  ["← ↑ → ↓", "another cell; beside each other: another right-hand cell"],
  ["Home, End", "first, last cell of the row"],
  ["Enter", "everything about the cell"],
  ["Space", "choose the cell; the second one opens both beside each other"],
  ["d", "difference between the chosen cell and this one"],
  ["s w f d e", "beside each other: side by side, slider, flicker, difference, FLIP's error map"],
  ["< >", "difference: weaker, stronger"],
  ["x", "beside each other: swap the two"],
  ["+ − 0", "zoom in, zoom out, whole picture, in all cells"],
  ["Shift + arrows", "move the part in view, in all cells"],
  ["[ ]", "one denoising step back, on"],
  ["p", "play the denoising"],
  ["t", "swap rows and columns"],
  ["h, H", "hide the cell's column, its row"],
  ["u", "show all values again"],
  ["Escape", "close, or let go of the chosen cell"],
  ["?", "this list"],
];

const ARROWS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
};

// What a key does anywhere, on the sheet while no pair is open, and on a cell of it. What gives
// false did nothing, and the browser may act.
const ANYWHERE = {
  "+": ({ zoom }) => zoom.by(2),
  "=": ({ zoom }) => zoom.by(2),
  "-": ({ zoom }) => zoom.by(0.5),
  "−": ({ zoom }) => zoom.by(0.5),
  0: ({ zoom }) => zoom.reset(),
  "[": ({ steps }) => steps.by(-1),
  "]": ({ steps }) => steps.by(1),
  p: ({ steps }) => steps.any && steps.play(),
  "?": ({ help }) => help.showModal(),
};
const ON_THE_SHEET = {
  t: (viewer) => viewer.swap(),
  u: (viewer) => viewer.showAll(),
};
const ON_A_CELL = {
  Enter: (viewer, target) => !target.matches(".pick") && viewer.open(viewer.sheet.focus),
  " ": (viewer) => viewer.pick(viewer.sheet.focus),
  Home: (viewer) => viewer.focusTile(viewer.sheet.end(true)),
  End: (viewer) => viewer.focusTile(viewer.sheet.end(false)),
  d: (viewer) => viewer.differ(),
  h: (viewer) => viewer.hide("columns"),
  H: (viewer) => viewer.hide("rows"),
};

export function onKey(viewer, event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (onEscape(viewer)) event.stopPropagation();
  } else if (!isForAnother(viewer, event.target) && act(viewer, event)) {
    event.preventDefault();
    event.stopPropagation();
  }
}

// Close the panel or let go of the picked cell; dialogs are closed by the browser.
function onEscape(viewer) {
  if (viewer.help.open || viewer.pair.isOpen) return false;
  if (viewer.panels.isOpen) viewer.panels.close();
  else if (viewer.picked !== null) viewer.letGo();
  else return false;
  return true;
}

// Whether a key is for the list of keys, or for a list or a text that has the focus.
function isForAnother({ help }, target) {
  return help.open || target.matches("select, input:not([type=range]):not([type=checkbox])");
}

// Do what a key says; false if it says nothing here.
function act(viewer, event) {
  const { key, target } = event;
  if (ARROWS[key]) return onArrow(viewer, event);
  let action = ANYWHERE[key];
  if (!action && viewer.pair.isOpen) return viewer.pair.key(key);
  action ??= ON_THE_SHEET[key];
  if (viewer.sheet.tileAt(target)) action ??= ON_A_CELL[key];
  return action !== undefined && action(viewer, target) !== false;
}

// Arrows walk from cell to cell, with Shift they move the part in view; a slider keeps its own.
function onArrow(viewer, { key, shiftKey, target }) {
  const [dx, dy] = ARROWS[key];
  if (target.matches("input[type=range], [role=slider]")) return false;
  if (shiftKey) viewer.zoom.pan(-dx / 10, -dy / 10);
  else if (viewer.pair.isOpen) viewer.pair.walk([dx, dy]);
  else if (viewer.sheet.tileAt(target)) {
    viewer.focusTile(viewer.sheet.next(viewer.sheet.focus, [dx, dy]));
  } else return false;
  return true;
}

export function helpDialog() {
  const close = () => dialog.close();
  const dialog = h("dialog.help", { "aria-label": "Keys" },
    h("header", {}, h("strong", {}, "Keys"),
      h("button.textual.close", { "aria-label": "Close", onclick: close }, "✕")),
    h("table", {}, h("tbody", {}, ...KEYS.map(([keys, what]) => (
      h("tr", {}, h("th", { scope: "row" }, keys), h("td", {}, what)))))),
    h("p", {}, "Ctrl or ⌘ with the wheel, or two fingers, zoom; a drag moves the part in view. "
      + "Shift-click, or the circle below a picture, chooses it."));
  return dialog;
}

// What is written beside the large pictures: the parameters that differ, the measurements, notes.

import { breakable, h } from "./dom.js";

export function valueText(value) {
  if (value === undefined || value === null || value === "") return "–";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

// How B's measurement stands to A's: a factor where both are positive, else a difference.
export function comparedText(a, b) {
  if (typeof a !== "number" || typeof b !== "number") return "";
  if (a > 0 && b > 0) return `${(b / a).toFixed(2)} ×`;
  return `${b > a ? "+" : ""}${Number((b - a).toPrecision(3))}`;
}

// The table of one or two cells, and their notes.
export function factsOf({ base, measures }, cells) {
  const two = cells.length > 1;
  const parameters = parameterLines(base, cells);
  const measured = measures.filter(({ key }) => cells.some((cell) => cell.values[key]))
    .map(({ key, label }) => line(label, ...measurement(key, cells)));
  const notes = cells.flatMap((cell, i) => [...cell.marks, ...cell.notes]
    .map((note) => h("li", {}, two ? `${"AB"[i]}: ${note}` : note)));
  const names = two ? ["A", "B"] : ["Value"];
  return [
    h("table", {}, h("tbody", {}, headings(two ? "Differs" : "Parameter", ...names),
      ...(parameters.length ? parameters : [line("nothing", "", "")]),
      ...(measured.length ? [
        headings("Measured", ...names, ...(two ? ["B to A"] : [])), ...measured] : []))),
    notes.length ? h("ul", {}, ...notes) : ""];
}

// A line for each parameter of a cell, or for each that differs between two.
function parameterLines(base, cells) {
  const text = ({ params }, name) => valueText(name in params ? params[name] : base[name]);
  const names = new Set([base, ...cells.map((cell) => cell.params)].flatMap(Object.keys));
  return [...names].map((name) => [name, ...cells.map((cell) => text(cell, name))])
    .filter(([, ...texts]) => texts.length < 2 || texts[0] !== texts[1])
    .map((texts) => line(...texts));
}

function measurement(key, cells) {
  const texts = cells.map((cell) => cell.texts[key] || "–");
  if (cells.length < 2) return texts;
  return [...texts, comparedText(...cells.map((cell) => cell.values[key]))];
}

const line = (name, ...values) => h("tr", {}, h("th", { scope: "row" }, breakable(name)),
  ...values.map((value) => h("td", {}, value)));

const headings = (...names) => h("tr.head", {},
  ...names.map((name) => h("th", { scope: "col" }, name)));

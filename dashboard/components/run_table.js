// The table of runs: a row per run with its thumbnail; headings sort, rows open, boxes select.

import { h } from "../../pipelines/sheet/viewer/dom.js";

function headings({ columns, sort, ascending }, sortBy) {
  return h("tr", {}, h("th", { "aria-label": "Selected" }, h("span", {}, " ")),
    h("th", { "aria-label": "Picture" }, h("span", {}, " ")),
    ...columns.map(({ id, label, numeric }) => {
      const [order, arrow] = sort !== id ? ["none", ""]
        : ascending ? ["ascending", " ↑"] : ["descending", " ↓"];
      return h("th", { class: numeric ? "numeric" : "", "aria-sort": order },
        h("button", { onclick: () => sortBy(id) }, label + arrow));
    }));
}

function thumbnail({ url, large, alt }) {
  return url ? h("img", { class: large ? "large" : "", src: url, alt, loading: "lazy" })
    : h("div.none");
}

function cell({ id, label, numeric, wide }, text) {
  const kinds = [numeric ? "numeric" : "", wide ? "wide" : ""].join(" ");
  let content = text;
  if (wide) content = h("button", { title: text }, text);
  else if (id === "status") content = h("span", { class: `status ${text}` }, text);
  const labelled = numeric && !wide && id !== "status";
  return h("td", { class: kinds, "data-label": labelled ? label : null }, content);
}

function box(run, data, select) {
  const input = h("input", {
    type: "checkbox", "aria-label": `Select run ${run.id}`, checked: data.selected.includes(run.id),
    onchange: () => {
      const others = data.selected.filter((id) => id !== run.id);
      data.selected = input.checked ? [...others, run.id] : others;
      select(data.selected);
    },
  });
  input.checked = data.selected.includes(run.id);
  return h("td.box", { onclick: (event) => event.stopPropagation() }, h("label", {}, input));
}

function marks({ starred, tags }) {
  return [...(starred ? [h("span.star", { title: "Starred" }, "★")] : []),
    ...tags.map((tag) => h("span.tag", {}, tag))];
}

export default function show({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector("thead").replaceChildren(
    headings(data, (column) => setTriggerValue("sort", column)),
  );
  parentElement.querySelector("tbody").replaceChildren(...data.rows.map((run) => (
    h("tr", { "data-run": run.id, onclick: () => setTriggerValue("open", run.id) },
      box(run, data, (ids) => setTriggerValue("select", ids)),
      h("td.picture", {}, thumbnail(run)),
      ...data.columns.map((column) => {
        const made = cell(column, run[column.id]);
        if (column.wide) made.append(...marks(run));
        return made;
      })))));
}

// The table of runs: a row per run with its thumbnail; headings sort, rows open.

import { h } from "../../pipelines/sheet/viewer/dom.js";

function headings({ columns, sort, ascending }, sortBy) {
  return h("tr", {}, h("th", { "aria-label": "Picture" }, h("span", {}, " ")),
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

export default function show({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector("thead").replaceChildren(
    headings(data, (column) => setTriggerValue("sort", column)),
  );
  parentElement.querySelector("tbody").replaceChildren(...data.rows.map((run) => (
    h("tr", { "data-run": run.id, onclick: () => setTriggerValue("open", run.id) },
      h("td.picture", {}, thumbnail(run)),
      ...data.columns.map((column) => cell(column, run[column.id]))))));
}

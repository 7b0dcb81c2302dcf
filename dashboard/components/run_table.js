function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function headings(data, setTriggerValue) {
  const row = element("tr");
  const picture = element("th");
  picture.append(element("span", "", " "));
  picture.setAttribute("aria-label", "Picture");
  row.append(picture);
  for (const column of data.columns) {
    const th = element("th", column.numeric ? "numeric" : "");
    const sorted = data.sort === column.id;
    th.setAttribute("aria-sort", !sorted ? "none" : data.ascending ? "ascending" : "descending");
    const button = element("button", "", column.label + (sorted ? (data.ascending ? " ↑" : " ↓") : ""));
    button.type = "button";
    button.onclick = () => setTriggerValue("sort", column.id);
    th.append(button);
    row.append(th);
  }
  return row;
}

function line(data, run, setTriggerValue) {
  const row = element("tr");
  row.dataset.run = run.id;
  row.onclick = () => setTriggerValue("open", run.id);
  const first = element("td", "picture");
  if (run.url) {
    const image = element("img", run.large ? "large" : "");
    image.src = run.url;
    image.alt = run.alt;
    image.loading = "lazy";
    first.append(image);
  } else {
    first.append(element("div", "none"));
  }
  row.append(first);
  for (const column of data.columns) {
    const text = run[column.id];
    const td = element("td", `${column.numeric ? "numeric" : ""} ${column.wide ? "wide" : ""}`);
    if (column.wide) {
      const button = element("button", "", text);
      button.type = "button";
      button.title = text;
      td.append(button);
    } else if (column.id === "status") {
      td.append(element("span", `status ${text}`, text));
    } else {
      td.textContent = text;
      if (column.numeric) td.dataset.label = column.label;
    }
    row.append(td);
  }
  return row;
}

export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector("thead").replaceChildren(headings(data, setTriggerValue));
  parentElement.querySelector("tbody").replaceChildren(
    ...data.rows.map((run) => line(data, run, setTriggerValue)),
  );
}

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

function row(line, open) {
  const item = element("li");
  const button = element("button", "line");
  button.type = "button";
  button.onclick = () => open(line.id);
  const said = [line.id, ...line.marks.map(([, text]) => text), ...line.facts,
    ...line.figures.map(([label, value]) => `${value} ${label}`), line.problem];
  button.setAttribute("aria-label", said.filter(Boolean).join(", "));
  const name = element("span", "name");
  if (line.author) name.append(element("span", "author", `${line.author} / `));
  name.append(element("span", "title", line.name));
  const marks = element("span", "marks");
  marks.append(...line.marks.map(([kind, text]) => element("span", `mark ${kind}`, text)));
  const facts = element("span", "facts", line.facts.join(" · "));
  const figures = element("span", "figures");
  figures.append(...line.figures.map(([label, value]) => {
    const figure = element("span", "figure");
    figure.append(element("span", "value", value), element("span", "label", label));
    return figure;
  }));
  const left = element("span", "left");
  const head = element("span", "head");
  head.append(name, marks);
  left.append(head, facts);
  if (line.problem) left.append(element("span", "problem", line.problem));
  button.append(left, figures);
  item.append(button);
  return item;
}

export default function ({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector(".list").replaceChildren(
    ...data.lines.map((line) => row(line, (id) => setTriggerValue("open", id))),
  );
}

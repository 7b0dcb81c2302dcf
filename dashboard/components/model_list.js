// Models as a list: one line each, the whole line opens it.

import { h } from "../../pipelines/sheet/viewer/dom.js";

function row({ id, name, author, facts, figures, marks, problem }, open) {
  const said = [id, ...marks.map(([, text]) => text), ...facts,
    ...figures.map(([label, value]) => `${value} ${label}`), problem];
  const head = h("span.head", {},
    h("span.name", {}, author ? h("span.author", {}, `${author} / `) : null,
      h("span.title", {}, name)),
    h("span.marks", {}, ...marks.map(([kind, text]) => (
      h("span", { class: `mark ${kind}` }, text)))));
  const button = h("button.line", {
    "aria-label": said.filter(Boolean).join(", "), onclick: () => open(id),
  },
  h("span.left", {}, head, h("span.facts", {}, facts.join(" · ")),
    problem ? h("span.problem", {}, problem) : null),
  h("span.figures", {}, ...figures.map(([label, value]) => h("span.figure", {},
    h("span.value", {}, value), h("span.label", {}, label)))));
  return h("li", {}, button);
}

export default function show({ data, parentElement, setTriggerValue }) {
  parentElement.querySelector(".list").replaceChildren(
    ...data.lines.map((line) => row(line, (id) => setTriggerValue("open", id))),
  );
}

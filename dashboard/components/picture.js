const states = new WeakMap();

// Small pictures grow by whole device pixels only; large ones shrink smoothly.
function fit(state) {
  const { root, node, shown, share } = state;
  const available = root.clientWidth - 2;
  if (!node || available <= 0) return;
  const density = window.devicePixelRatio || 1;
  const tallest = Math.max(256, window.innerHeight * share);
  let scale = Math.min(available / shown.width, tallest / shown.height);
  const grows = scale * density >= 1;
  if (grows) scale = Math.floor(scale * density) / density;
  node.style.width = `${shown.width * scale}px`;
  node.style.height = `${shown.height * scale}px`;
  node.style.imageRendering = grows ? "pixelated" : "auto";
}

function draw(state) {
  const { root, data } = state;
  const index = Math.min(state.index, data.pictures.length - 1);
  const shown = data.pictures[index];
  const tag = shown.url ? "IMG" : "DIV";
  if (!state.node || state.node.tagName !== tag) {
    state.node = document.createElement(tag);
    root.replaceChildren(state.node);
  }
  if (shown.url) {
    if (state.node.getAttribute("src") !== shown.url) state.node.src = shown.url;
    state.node.alt = shown.alt;
  } else {
    state.node.className = shown.waiting ? "empty waiting" : "empty";
    state.node.setAttribute("role", "img");
    state.node.setAttribute("aria-label", shown.alt);
  }
  state.shown = shown;
  state.share = data.share;
  fit(state);
  const strip = data.pictures.length > 1 ? data.pictures : [];
  state.strip.replaceChildren(...strip.map((picture, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(number === index));
    if (picture.url) {
      const small = document.createElement("img");
      small.src = picture.url;
      small.alt = picture.alt;
      button.append(small);
    }
    button.append(picture.caption);
    button.onclick = () => {
      state.index = number;
      state.setStateValue("index", number);
      draw(state);
      state.strip.children[number]?.focus();
    };
    return button;
  }));
}

export default function ({ data, parentElement, setStateValue }) {
  let state = states.get(parentElement);
  if (!state) {
    const root = parentElement.querySelector(".stage");
    state = { root, strip: parentElement.querySelector(".strip"), index: 0 };
    state.observer = new ResizeObserver(() => fit(state));
    state.observer.observe(root);
    states.set(parentElement, state);
  }
  const first = !state.data;
  Object.assign(state, { data, setStateValue });
  draw(state);
  // On a phone the picture lies far below the button that started it.
  if (first && data.pictures[0].waiting && window.innerWidth <= 640) {
    state.root.scrollIntoView({ behavior: "smooth", block: "center" });
  }
  return () => { state.observer.disconnect(); states.delete(parentElement); };
}

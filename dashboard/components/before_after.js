const states = new WeakMap();

// Like the picture viewer: small pictures grow by whole device pixels, large ones shrink smoothly.
function fit({ room, pair, data }) {
  const available = room.clientWidth - 2;
  if (available <= 0) return;
  const density = window.devicePixelRatio || 1;
  const tallest = Math.max(256, window.innerHeight * data.share);
  let scale = Math.min(available / data.width, tallest / data.height);
  const grows = scale * density >= 1;
  if (grows) scale = Math.floor(scale * density) / density;
  pair.style.width = `${data.width * scale}px`;
  pair.style.height = `${data.height * scale}px`;
  for (const image of pair.querySelectorAll("img")) image.style.imageRendering = grows ? "pixelated" : "auto";
}

function draw(state) {
  const { pair, data, strip } = state;
  const index = Math.min(state.index, data.tries.length - 1);
  const shown = data.tries[index];
  for (const [name, url] of [["before", data.before], ["after", shown.url]]) {
    const image = pair.querySelector(`.${name}`);
    if (image.getAttribute("src") !== url) image.src = url;
  }
  pair.querySelector(".after").alt = shown.alt;
  fit(state);
  const many = data.tries.length > 1 ? data.tries : [];
  strip.replaceChildren(...many.map((picture, number) => {
    const button = document.createElement("button");
    const small = document.createElement("img");
    button.type = "button";
    button.setAttribute("aria-pressed", String(number === index));
    small.src = picture.url;
    small.alt = picture.alt;
    button.append(small, picture.caption);
    button.onclick = () => {
      state.index = number;
      state.setStateValue("index", number);
      draw(state);
      strip.children[number]?.focus();
    };
    return button;
  }));
}

export default function ({ data, parentElement, setStateValue }) {
  let state = states.get(parentElement);
  if (!state) {
    const [room, pair, strip] = [".room", ".pair", ".strip"].map((name) => parentElement.querySelector(name));
    state = { room, pair, strip, index: 0 };
    const range = parentElement.querySelector("input");
    range.oninput = () => pair.style.setProperty("--at", `${range.value / 10}%`);
    state.observer = new ResizeObserver(() => fit(state));
    state.observer.observe(room);
    states.set(parentElement, state);
  }
  Object.assign(state, { data, setStateValue });
  draw(state);
  return () => { state.observer.disconnect(); states.delete(parentElement); };
}

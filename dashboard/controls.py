"""Widgets that pages share; each returns a value of the engine."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

import streamlit as st

from dashboard import state
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.run_details import alt_text, run_measurements, run_record
from dashboard.components.text import notice, words
from pipelines.comparison import AXIS_NAMES, TEXT_AXES, Axis, label, make_axis
from pipelines.errors import PipelineError, StorageError
from pipelines.postcards.vocabulary import EXAMPLE_PROMPTS, known_words, unknown_words
from pipelines.request import RunRequest
from pipelines.run_log import Run
from pipelines.schedulers import BY_KEY

KEEP = {"persist_state": "session"}  # a value survives the visit of another page

AXIS_DEFAULTS = {
    "guidance_scale": "1, 3, 5, 7.5, 12",
    "num_inference_steps": "5, 10, 20, 40",
    "seed": "0, 1, 2, 3",
    "guidance_rescale": "0, 0.5, 1",
    "eta": "0, 0.5, 1",
}
SCHEDULER_DEFAULTS = ["ddim", "euler", "dpmpp_2m", "unipc", "heun", "euler_a"]
FIRST_AXES = ("scheduler", "guidance_scale", "num_inference_steps", "seed", "prompt")


def model_default_scheduler(model_id: str) -> str:
    return state.engine().registry.describe(model_id).default_scheduler


def fitting_schedulers(page: str) -> list[str]:
    """Keys of the schedulers that go with a page's model; all where the model is unknown."""
    try:
        model_id = st.session_state[state.key(page, "model_id")] or ""
        return [info.key for info in state.engine().registry.describe(model_id).schedulers]
    except PipelineError:
        return list(BY_KEY)


def prompt_control(page: str, without: Collection[str] = ()) -> None:
    """Prompt with one-click examples, and the negative prompt."""
    if "prompt" not in without:
        st.text_area("Prompt", height=84, placeholder="What shall the picture show?",
                     key=state.key(page, "prompt"), **KEEP)
    if "negative_prompt" not in without:
        st.text_input("Negative prompt", key=state.key(page, "negative_prompt"),
                      placeholder="What shall it not show?", **KEEP)


def example_prompts(page: str) -> None:
    """Prompts of the bundled model to start from, and the words that it knows."""
    if st.session_state[state.key(page, "model_id")] != "postcards":
        return

    def take(prompt: str) -> None:
        st.session_state[state.key(page, "prompt")] = prompt

    with st.popover("Examples", icon=":material/lightbulb:", type="tertiary"):
        words(f"Words it knows: {', '.join(sorted(known_words()))}.", "quiet")
        with st.container(gap=None):
            for number, prompt in enumerate(EXAMPLE_PROMPTS):
                st.button(prompt, key=f"{page}.example.{number}", on_click=take, args=(prompt,),
                          type="tertiary")


def unknown_words_note(model_id: str, *prompts: str) -> None:
    """A gentle note where the bundled model does not know words of the prompt."""
    if model_id != "postcards":
        return
    unknown = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt)))
    if unknown:
        listed = ", ".join(unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        notice("note", f"The postcards model does not know: {listed}. It paints postcards of "
                       "simple things; the examples show its words.")  # fmt: skip


def scheduler_text(key: str) -> str:
    """What the literature says of a scheduler, its paper as a link."""
    info = BY_KEY[key]
    noise = "stochastic" if info.stochastic else "deterministic"
    count = info.evaluations_per_step
    calls = f"{count} evaluation{'s' * (count > 1)} per step"
    paper = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", info.paper)
    return f"{info.family} · order {info.order} · {noise} · {calls}  \n{paper}"


def scheduler_control(page: str) -> None:
    model_id = st.session_state[state.key(page, "model_id")]
    try:
        own = model_default_scheduler(model_id)
    except PipelineError:
        own = None

    def show(key: str) -> str:
        if key != "default":
            return BY_KEY[key].label
        return f"Default ({BY_KEY[own].label})" if own in BY_KEY else "Default (the model's own)"

    current = st.session_state[state.key(page, "scheduler")]
    options = ["default", *fitting_schedulers(page)]
    chosen = st.selectbox("Scheduler", options + [current] * (current not in options),
                          format_func=show, key=state.key(page, "scheduler"), **KEEP)
    if (known := own if chosen == "default" else chosen) in BY_KEY:
        st.caption(scheduler_text(known))


def number_controls(page: str, without: Collection[str] = ()) -> None:
    """num_inference_steps, guidance_scale and the seed with its dice."""
    left, right = st.columns(2)
    if "num_inference_steps" not in without:
        left.number_input("num_inference_steps", 1, 1000, step=1,
                          key=state.key(page, "num_inference_steps"), **KEEP)
    if "guidance_scale" not in without:
        place = right if "num_inference_steps" not in without else left
        place.number_input("guidance_scale", 0.0, 100.0, step=0.5, format="%g",
                           key=state.key(page, "guidance_scale"), **KEEP,
                           help="Classifier-free guidance; at 1 or below it is off, and a step "
                                "costs half.")  # fmt: skip
    if "seed" not in without:
        seed_control(page)


def seed_control(page: str) -> None:
    def roll() -> None:
        st.session_state[state.key(page, "seed")] = str(secrets.randbelow(2**32))

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Seed", key=state.key(page, "seed"), **KEEP,
                      help="Decides the initial noise: the same on every machine and for every "
                           "scheduler.")  # fmt: skip
        st.button("Roll", icon=":material/casino:", on_click=roll, key=f"{page}.dice",
                  help="Another seed")


def model_control(page: str) -> None:
    """The model by id: bundled ones, a folder, or a Hub id in the local cache."""
    known = [info.model_id for info in state.engine().registry.bundled()]
    current = st.session_state[state.key(page, "model_id")]
    options = [*known, *([current] if current and current not in known else [])]
    st.selectbox("Model", options, key=state.key(page, "model_id"), accept_new_options=True,
                 **KEEP, help="A bundled model, the path of a diffusers folder, or a Hub id "
                                "that lies in the Hugging Face cache: type it.")  # fmt: skip


def size_controls(page: str, without: Collection[str] = ()) -> None:
    try:
        info = state.engine().registry.describe(st.session_state[state.key(page, "model_id")])
        own, multiple = {"width": info.width, "height": info.height}, info.size_multiple
    except PipelineError:
        own, multiple = {}, 8
    for place, name in zip(st.columns(2), ("width", "height"), strict=True):
        if name not in without:
            place.number_input(name.capitalize(), 8, 4096, value=None, step=multiple,
                               key=state.key(page, name), placeholder=f"{own.get(name, 'own')} px",
                               help=f"Multiples of {multiple} px; empty: the model's own.",
                               **KEEP)  # fmt: skip


def advanced_controls(page: str, without: Collection[str] = ()) -> None:
    left, right = st.columns(2)
    if "guidance_rescale" not in without:
        left.number_input("Guidance rescale", 0.0, 1.0, step=0.1, format="%g",
                          key=state.key(page, "guidance_rescale"), **KEEP)
    if "eta" not in without:
        right.number_input("Eta (DDIM)", 0.0, 1.0, step=0.1, format="%g",
                           key=state.key(page, "eta"), **KEEP)
    st.text_input("Scheduler options", key=state.key(page, "scheduler_options"),
                  placeholder='{"use_karras_sigmas": true}', **KEEP,
                  help="Constructor options of the diffusers scheduler, as JSON.")
    carried = st.session_state.get(state.key(page, "carried"))
    if carried:
        st.text("Also set: " + ", ".join(f"{name} {value}" for name, value in carried.items()))
        st.button("Forget these", key=f"{page}.forget", on_click=st.session_state.pop,
                  args=(state.key(page, "carried"), None))


def axes_controls(page: str, base: RunRequest) -> list[Axis]:
    """Which fields vary and over which values; raises RequestError."""
    names_key = f"{page}.axes"
    order = [*FIRST_AXES, *(name for name in AXIS_NAMES if name not in FIRST_AXES)]
    st.session_state.setdefault(names_key, ["scheduler", "guidance_scale"])
    names = st.multiselect("Axes: the first makes rows, the second columns, others more sheets",
                           order, key=names_key, select_all=False, **KEEP)
    return [make_axis(name, _axis_values(page, name, names), base) for name in names]


def _axis_values(page: str, name: str, names: list[str]) -> list[str]:
    places = ("Rows", "Columns") if len(names) > 1 else ("Columns",)
    position = names.index(name)
    place = places[position] if position < len(places) else "Sheets"
    key = f"{page}.values.{name}"
    if name == "scheduler":
        st.session_state.setdefault(key, SCHEDULER_DEFAULTS)
        fitting = fitting_schedulers(page)
        chosen = [scheduler for scheduler in st.session_state[key] if scheduler not in fitting]
        return st.multiselect(f"{place}: scheduler", [*fitting, *chosen], key=key, **KEEP,
                              format_func=lambda scheduler: BY_KEY[scheduler].label)
    current = str(st.session_state.get(state.key(page, name)) or "")
    st.session_state.setdefault(key, AXIS_DEFAULTS.get(name, current))
    if name in TEXT_AXES:
        text = st.text_area(f"{place}: {name}, one per line", key=key, height=96, **KEEP)
        return [line.strip() for line in text.splitlines() if line.strip()]
    text = st.text_input(f"{place}: {name}", key=key, placeholder="1, 3, 7", **KEEP)
    return [value.strip() for value in text.split(",")]


def axis_text(axis: Axis) -> str | list[str]:
    """An axis's values as its widget holds them."""
    if axis.name == "scheduler":
        return list(axis.values)
    separator = "\n" if axis.name in TEXT_AXES else ", "
    return separator.join(f"{v:g}" if isinstance(v, float) else str(v) for v in axis.values)


def picture_of(run: Run, place: str, caption: str = "") -> Picture:
    """A run's picture for the viewer; an empty frame where there is none."""
    path = state.engine().picture_path(run)
    url = state.picture_url(path, place) if path and path.exists() else None
    alt = alt_text(run) if url else f"No picture: {run.error or run.status}"
    return Picture(url, run.width or 64, run.height or 64, alt, caption)


def request_buttons(run: Run, place: str) -> None:
    """Take a run's request elsewhere, or its picture home."""
    with st.container(horizontal=True, gap="small"):
        if place != "generate" and st.button(
            "Open in Generate", key=f"{place}.open.{run.id}", icon=":material/photo_camera:"
        ):
            state.put_request(state.GENERATE, RunRequest(**run.request))
            st.session_state.pop(state.OPENED_RUN, None)
            st.switch_page("views/generate.py")
        if st.button("Compare this", key=f"{place}.compare.{run.id}", icon=":material/grid_on:"):
            state.put_request(state.COMPARE, RunRequest(**run.request))
            st.session_state.pop(state.OPENED_RUN, None)
            st.session_state[state.COMPARISON] = None
            st.session_state["compare.setup.next"] = True
            st.switch_page("views/compare.py")
        path = state.engine().picture_path(run)
        if path and path.exists():
            st.download_button("Download", path.read_bytes, f"contact-sheet-{run.id}.png",
                               "image/png", key=f"{place}.download.{run.id}", on_click="ignore",
                               icon=":material/download:")  # fmt: skip


@st.dialog("Run", width="medium", position="right", on_dismiss=lambda: forget_opened_run())
def run_drawer(run: Run) -> None:
    """Everything about one run, at the side of the page."""
    if run.image_sha256:
        picture_viewer([picture_of(run, "drawer")], key=f"drawer-{run.id}", share_of_height=0.5)
    words(run.prompt or "(no prompt)")
    if run.negative_prompt:
        words(f"Negative prompt: {run.negative_prompt}", "quiet")
    words(f"{label('scheduler', run.scheduler)} · {run.num_inference_steps} steps · guidance "
          f"{run.guidance_scale:g} · seed {run.seed} · {run.model_id} · "
          f"{run.datetime_utc[:19].replace('T', ' ')} UTC", "quiet")  # fmt: skip
    request_buttons(run, "drawer")
    run_measurements(run)
    run_record(run)


def open_run(run_id: int) -> None:
    st.session_state[state.OPENED_RUN] = run_id
    st.rerun()


def forget_opened_run() -> None:
    st.session_state.pop(state.OPENED_RUN, None)


def opened_run() -> None:
    """Keep the drawer open over reruns, until it is closed."""
    run_id = st.session_state.get(state.OPENED_RUN)
    if run_id is None:
        return
    try:
        run = state.engine().run_log.run(run_id)
    except StorageError as error:
        notice("error", str(error))
        return
    if run:
        run_drawer(run)

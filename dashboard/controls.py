"""Widgets that pages share; each returns a value of the engine."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from typing import Any

import streamlit as st

from dashboard import state
from dashboard.components.masked import masked_picture
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.run_details import (
    alt_text,
    kept_notice,
    run_measurements,
    run_record,
)
from dashboard.components.text import notice, words
from dashboard.draft import Draft
from pipelines.axes import (
    AXIS_NAMES,
    OPTION,
    REPLACE,
    TEXT_AXES,
    Axis,
    AxisError,
    label,
    make_axis,
    parse_axis,
)
from pipelines.chain import default_strength
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError, StorageError
from pipelines.inpainting.masks import as_mask
from pipelines.inpainting.pictures_in import open_rgb
from pipelines.models.info import ModelInfo
from pipelines.models.registry import MEMORY_POLICIES
from pipelines.painting.execution import attention_backends, caches, compile_obstacle
from pipelines.postcards.vocabulary import EXAMPLE_PROMPTS, known_words, unknown_words
from pipelines.request import RunRequest
from pipelines.run_log import Run
from pipelines.schedulers import BY_KEY

KEEP = {"persist_state": "session"}  # a value survives the visit of another page

OPTION_AXES = tuple(OPTION + name for name in (
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "timestep_spacing",
    "solver_order", "algorithm_type", "final_sigmas_type"))  # fmt: skip
VALUES_HELP = ("1, 3, 7 or 1..10, in steps 1..10:2, a number of values 0.1..0.9/5, going on 1, 2, "
               ".., 9; skip: before a value leaves it out.")  # fmt: skip
REPLACE_HELP = "The first line is looked for in the prompt; each line takes its place in turn."
AXIS_DEFAULTS = {
    "guidance_scale": "1, 3, 5, 7.5, 12",
    "num_inference_steps": "5, 10, 20, 40",
    "seed": "0, 1, 2, 3",
    "guidance_rescale": "0, 0.5, 1",
    "eta": "0, 0.5, 1",
    "strength": "0.2..1/5",
    "torch_dtype": "float32, bfloat16",
    "attention_backend": "native, _native_math",
    "cache": "none, pyramid_attention_broadcast",
    "compile": "false, true",
    **dict.fromkeys(OPTION_AXES[:3], "false, true"),
    OPTION_AXES[3]: "leading, linspace, trailing",
    OPTION_AXES[4]: "1, 2, 3",
    OPTION_AXES[5]: "dpmsolver++, sde-dpmsolver++",
    OPTION_AXES[6]: "zero, sigma_min",
}
SCHEDULER_DEFAULTS = ["ddim", "euler", "dpmpp_2m", "unipc", "heun", "euler_a"]
FIRST_AXES = ("scheduler", "guidance_scale", "num_inference_steps", "seed", "prompt")


TASK_LABELS = {"text-to-image": "Text to image", "image-to-image": "Image to image",
               "inpainting": "In-painting", "unconditional": "Unconditional"}
DTYPES = ("float32", "float16", "bfloat16")


def page_model(page: str) -> ModelInfo | None:
    """What a page's model says of itself, None where it is unknown."""
    carried = st.session_state.get(state.key(page, "carried")) or {}
    try:
        model_id = (st.session_state[state.key(page, "model_id")] or "").strip()
        return state.engine().registry.describe(model_id, carried.get("revision"),
                                                carried.get("variant"))
    except PipelineError:
        return None


def takes(page: str, name: str) -> bool:
    """Whether a field has an effect with a page's model and task; yes where nobody knows."""
    info = page_model(page)
    return info is None or info.takes(st.session_state[state.key(page, "task")], name)


def adopt_defaults(page: str) -> None:
    """Another model starts at its own steps, guidance, size and scheduler."""
    forget_carried(page)
    info = page_model(page)
    if info is None:
        return
    values = {"num_inference_steps": info.num_inference_steps, "scheduler": "default",
              "guidance_scale": info.guidance_scale, "scheduler_options": "", "loras": "",
              "height": None, "width": None, "strength": default_strength(info),
              "attention_backend": "native", "cache": "none", "compile": False}
    if st.session_state[state.key(page, "task")] not in info.tasks:
        values["task"] = info.task_for()
    values |= dict.fromkeys(state.EXTRA_INPUTS)
    for name, value in values.items():
        st.session_state[state.key(page, name)] = value


def forget_carried(page: str) -> None:
    """Drop what a request brought along, but for the mask: without it there is no in-painting."""
    carried = st.session_state.get(state.key(page, "carried")) or {}
    st.session_state[state.key(page, "carried")] = {
        name: value for name, value in carried.items() if name in state.MASK_FIELDS}


def use_model(page: str, model_id: str, variant: str | None, revision: str | None) -> None:
    """Let a page start from a model, at the model's own steps and guidance."""
    state.prepare(page)
    st.session_state[state.key(page, "model_id")] = model_id
    adopt_defaults(page)
    carried = {"variant": variant, "revision": revision}
    st.session_state[state.key(page, "carried")] = {k: v for k, v in carried.items() if v}


def use_lora(page: str, path: str) -> None:
    """Add an adapter to those of a page."""
    state.prepare(page)
    name = state.key(page, "loras")
    lines = [*(st.session_state[name] or "").splitlines(), path]
    st.session_state[name] = "\n".join(dict.fromkeys(lines))


def task_control(page: str, without: Collection[str] = ()) -> None:
    """What is made of what, where the model can do several things."""
    info, current = page_model(page), st.session_state[state.key(page, "task")]
    tasks = [task for task in (info.tasks if info else ()) if task != "inpainting"]
    options = [*tasks, *([] if current in tasks else [current])]
    if len(options) > 1:
        st.radio("Task", options, format_func=TASK_LABELS.get, key=state.key(page, "task"),
                 horizontal=True, label_visibility="collapsed", on_change=own_strength,
                 args=(page,), **KEEP)
    if current == "inpainting":
        mask_control(page, without)
    elif current == "image-to-image":
        image_control(page, without)
    extra_controls(page)


def own_strength(page: str) -> None:
    if info := page_model(page):
        st.session_state[state.key(page, "strength")] = default_strength(info)


def image_control(page: str, without: Collection[str] = ()) -> None:
    """The picture to start from: an upload, or the one that a run brought along; its strength."""
    picture_control(page, "image", "Picture to start from")
    strength_control(page, without)


def mask_control(page: str, without: Collection[str] = ()) -> None:
    """Picture and mask of an in-painting, which are made on its own page, and the strength."""
    try:
        request = state.request_of(page)
    except PipelineError:  # told elsewhere on the page
        pass
    else:
        masked_request(request, f"{page}.mask")
    strength_control(page, without)


def masked_request(request: RunRequest, key: str) -> None:
    """The picture and mask of an in-painting request, and the way back to the canvas."""
    try:
        pictures = state.engine().pictures
        image, mask = pictures.get(request.image), as_mask(pictures.get(request.mask_image))
    except StorageError as error:
        notice("error", str(error))
        return
    below = masked_picture(image.convert("RGB"), mask, request.mask_feather, request.differential)
    if below.button("Change picture or mask", key=f"{key}.change", icon=":material/brush:",
                    type="tertiary"):
        open_inpainting(request)


def strength_control(page: str, without: Collection[str] = ()) -> None:
    if "strength" not in without:
        st.slider("Strength", 0.05, 1.0, step=0.05, key=state.key(page, "strength"), **KEEP,
                  help="How much of the denoising runs: near 0 the picture stays, at 1 only its "
                       "colours and shapes hint at it.")  # fmt: skip


def picture_control(page: str, name: str, label: str) -> None:
    """An upload for a field that names a picture, and the picture that is there."""
    field = state.key(page, name)
    upload, problem = f"{field}.upload", f"{field}.problem"

    def take() -> None:
        st.session_state[problem] = None
        if file := st.session_state[upload]:
            try:
                picture = open_rgb(file.getvalue(), file.name)
                st.session_state[field] = state.engine().pictures.put(picture)
            except PipelineError as error:
                st.session_state[problem] = str(error)

    sha = st.session_state.get(field)
    path = state.engine().pictures.path(sha) if sha else None
    shown = path is not None and path.exists()
    drop, picture = st.columns([2, 1], vertical_alignment="center") if shown else (st, None)
    drop.file_uploader(label, ["png", "jpg", "jpeg", "webp"], key=upload, on_change=take)
    if shown:
        with picture:
            picture_viewer([stored_picture(sha, f"{field}.input", label)], key=f"{field}.input",
                           share_of_height=0.18)  # fmt: skip
    if st.session_state.get(problem):
        notice("error", st.session_state[problem])


def extra_controls(page: str) -> None:
    """What a ControlNet, an adapter or a class-conditional model takes beside the prompt."""
    info = page_model(page)
    extras = info.extra_inputs(st.session_state[state.key(page, "task")]) if info else {}
    if "control_image" in extras:
        picture_control(page, "control_image", "Control image: edges, depth or pose to follow")
    labels = {"control_mode": "Control mode, a number of the model card",
              "class_label": "Class label, a number"}
    for name in labels.keys() & extras.keys():
        st.number_input(labels[name], 0, None, value=None, step=1, key=state.key(page, name),
                        placeholder="needed" if extras[name] else "any", **KEEP)


def fitting_schedulers(page: str) -> list[str]:
    """Keys of the schedulers that go with a page's model; all where the model is unknown."""
    info = page_model(page)
    return [scheduler.key for scheduler in info.schedulers] if info else list(BY_KEY)


def prompt_control(page: str, without: Collection[str] = ()) -> None:
    """Prompt with one-click examples, and the negative prompt."""
    if "prompt" not in without and takes(page, "prompt"):
        st.text_area("Prompt", height=84, placeholder="What shall the picture show?",
                     key=state.key(page, "prompt"), **KEEP)
    if "negative_prompt" not in without and takes(page, "negative_prompt"):
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
    info = page_model(page)
    own = info.default_scheduler if info else None

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
    if "guidance_scale" not in without and takes(page, "guidance_scale"):
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


def model_options(current: str | None) -> list[str]:
    """Ids to choose from, the current one among them."""
    known = state.offered()
    return [*known, *([current] if current and current not in known else [])]


def model_control(page: str) -> None:
    """The model by id: bundled ones, registered folders, what lies in the Hub's cache."""
    current = st.session_state[state.key(page, "model_id")]
    st.selectbox("Model", model_options(current), key=state.key(page, "model_id"), **KEEP,
                 accept_new_options=True, on_change=adopt_defaults, args=(page,),
                 help="Bundled, registered or downloaded models; the path of a diffusers folder "
                      "or of a .safetensors checkpoint can be typed. More on the page Hub.")


def size_controls(page: str, without: Collection[str] = ()) -> None:
    info = page_model(page)
    if st.session_state[state.key(page, "task")] == "unconditional" and not takes(page, "height"):
        return
    own = {"width": info.width, "height": info.height} if info else {}
    multiple = info.size_multiple if info else 8
    for place, name in zip(st.columns(2), ("width", "height"), strict=True):
        if name not in without:
            text = f"{own[name]} px" if own.get(name) else "the model's own"
            place.number_input(name.capitalize(), 8, 4096, value=None, step=multiple,
                               key=state.key(page, name), placeholder=text,
                               help=f"Multiples of {multiple} px; empty: the model's own, or that "
                                    "of the picture to start from.", **KEEP)  # fmt: skip


def advanced_controls(page: str, without: Collection[str] = ()) -> None:
    labels = {"guidance_rescale": "Guidance rescale", "eta": "Eta (DDIM)"}
    shown = [name for name in labels if name not in without and takes(page, name)]
    for place, name in zip(st.columns(2), shown, strict=False):
        place.number_input(labels[name], 0.0, 1.0, step=0.1, format="%g",
                           key=state.key(page, name), **KEEP)
    st.text_input("Scheduler options", key=state.key(page, "scheduler_options"),
                  placeholder='{"use_karras_sigmas": true}', **KEEP,
                  help="Constructor options of the diffusers scheduler, as JSON.")
    st.text_area("LoRA adapters", key=state.key(page, "loras"), height=68, **KEEP,
                 placeholder="style.safetensors = 0.8",
                 help="One per line: a .safetensors file, a folder, or a Hub id in the cache; "
                      "behind = its weight, else 1.")  # fmt: skip
    left, middle, right = st.columns(3)
    left.selectbox("dtype", [None, *DTYPES], key=state.key(page, "torch_dtype"), **KEEP,
                   format_func=lambda name: name or "the device's", placeholder="the device's",
                   help="Precision of weights and arithmetic.")
    middle.selectbox("Memory", ["auto", *MEMORY_POLICIES], key=state.key(page, "memory_policy"),
                     **KEEP, help="Where weights lie between uses. On the device is fastest; each "
                                  "further one needs less memory and more time.")  # fmt: skip
    right.selectbox("Quantise", [None, "int8", "int4"], key=state.key(page, "quantization"),
                    **KEEP, format_func=lambda name: name or "no", placeholder="no",
                    help="Smaller weights of the denoiser: int8 needs torchao, int4 bitsandbytes "
                         "and CUDA.")  # fmt: skip
    execution_controls(page, without)
    carried = st.session_state.get(state.key(page, "carried")) or {}
    if set(carried) - {"mask_image"}:
        st.text("Also set: " + ", ".join(f"{name} {value}" for name, value in carried.items()
                                         if name != "mask_image"))
    if set(carried) - state.MASK_FIELDS:
        st.button("Forget these", key=f"{page}.forget", on_click=forget_carried, args=(page,))


def execution_controls(page: str, without: Collection[str] = ()) -> None:
    """How the denoiser computes, as far as there is a choice for this model on this device."""
    info, device = page_model(page), state.engine().registry.device
    if info is None:
        return
    choices = {"attention_backend": attention_backends(info, device), "cache": caches(info)}
    labels = {"attention_backend": ("Attention", "diffusers' names of attention backends: the same "
                                    "picture but for the last bits, at another cost."),
              "cache": ("Cache", "A caching hook of diffusers: parts of a step are taken from the "
                                 "step before. Faster, and not quite the same picture.")}
    *places, last = st.columns(3, vertical_alignment="bottom")
    for place, (name, (text, help_text)) in zip(places, labels.items(), strict=True):
        current = st.session_state[state.key(page, name)]
        options = list(dict.fromkeys([*choices[name], current]))
        if name not in without and len(options) > 1:
            place.selectbox(text, options, key=state.key(page, name), help=help_text, **KEEP,
                            format_func=lambda value: value.strip("_").replace("_", " "))
    if "compile" not in without and not compile_obstacle(device):
        last.toggle("Compile", key=state.key(page, "compile"), **KEEP,
                    help="torch.compile of the denoiser: a minute or more before the first picture "
                         "of each size, timed as warm-up; later ones use the compiled code.")


def comparison_controls(page: str, base: RunRequest) -> Comparison:
    """Which fields vary, over which values, and which cells are left out; raises RequestError."""
    names_key = f"{page}.axes"
    st.session_state.setdefault(names_key, ["scheduler", "guidance_scale"])
    order = dict.fromkeys([*FIRST_AXES, *OPTION_AXES, *AXIS_NAMES, *st.session_state[names_key]])
    names = st.multiselect("Axes: the first makes rows, the second columns, others more sheets",
                           list(order), key=names_key, select_all=False, accept_new_options=True,
                           help="Any field of the request. Type scheduler_options.NAME for an "
                                "option of the scheduler, prompt_replace to change words of the "
                                "prompt, or names with + between to change them together.",
                           **KEEP)  # fmt: skip
    axes = [_axis(page, name, names, base) for name in names]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rules = st.text_input("Leave cells out", key=f"{page}.skip", width="stretch", **KEEP,
                              placeholder="scheduler=heun, num_inference_steps>20",
                              help="A rule over the axes; several are separated by semicolons. "
                                   "Cells for which all of its conditions hold are not made.")
        if "seed" not in names:
            count = st.number_input("Pictures per cell", 1, 20, key=f"{page}.pictures", **KEEP,
                                    width=150, help="As many seeds, from the seed on.")
            if count > 1:
                axes.append(parse_axis(f"seed={base.seed}..{base.seed + count - 1}", base))
    skip = tuple(rule.strip() for rule in rules.split(";") if rule.strip())
    return Comparison(base, tuple(axes), skip)


def _axis(page: str, name: str, names: list[str], base: RunRequest) -> Axis:
    places = ("Rows", "Columns") if len(names) > 1 else ("Columns",)
    position = names.index(name)
    place = places[position] if position < len(places) else "Sheets"
    key = f"{page}.values.{name}"
    if name == "scheduler":
        st.session_state.setdefault(key, SCHEDULER_DEFAULTS)
        fitting = fitting_schedulers(page)
        chosen = [scheduler for scheduler in st.session_state[key] if scheduler not in fitting]
        return make_axis(name, st.multiselect(
            f"{place}: scheduler", [*fitting, *chosen], key=key, **KEEP,
            format_func=lambda scheduler: BY_KEY[scheduler].label), base)
    current = str(st.session_state.get(state.key(page, name)) or "")
    st.session_state.setdefault(key, AXIS_DEFAULTS.get(name, current))
    if TEXT_AXES & set(name.split("+")):
        text = st.text_area(f"{place}: {name}, one per line", key=key, height=96, **KEEP,
                            help=REPLACE_HELP if name in REPLACE else None)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return parse_axis(f"{name}={' || '.join(lines)}", base)
    text = st.text_input(f"{place}: {name}", key=key, placeholder="1, 3, 7", help=VALUES_HELP,
                         **KEEP)  # fmt: skip
    return parse_axis(f"{name}={text}", base)


def axis_text(axis: Axis) -> str | list[str]:
    """An axis's values as its widget holds them."""
    if axis.name == "scheduler":
        return list(axis.values)
    texts = [_value_text(value) for value in axis.values]
    if axis.search is not None and axis.search not in axis.values:
        texts.insert(0, f"skip:{axis.search}")
    return ("\n" if TEXT_AXES & set(axis.parts) else ", ").join(texts)


def _value_text(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_value_text, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def put_comparison(page: str, comparison: Comparison) -> None:
    """Fill the widgets of a page with a comparison."""
    state.put_request(page, comparison.base)
    st.session_state[f"{page}.axes"] = [axis.name for axis in comparison.axes]
    st.session_state[f"{page}.skip"] = "; ".join(comparison.skip)
    st.session_state[f"{page}.pictures"] = 1
    for axis in comparison.axes:
        st.session_state[f"{page}.values.{axis.name}"] = axis_text(axis)


def problem_notice(error: PipelineError) -> None:
    """An error in words, with the place of a mistake marked where it is known."""
    if not isinstance(error, AxisError):
        notice("error", str(error))
        return
    notice("error", error.reason)
    st.code(error.marked, language=None)


def picture_of(run: Run, place: str, caption: str = "") -> Picture:
    """A run's picture for the viewer; an empty frame where there is none."""
    path = state.engine().picture_path(run)
    url = state.picture_url(path, place) if path and path.exists() else None
    alt = alt_text(run) if url else f"No picture: {run.error or run.status}"
    return Picture(url, run.width or 64, run.height or 64, alt, caption)


def stored_picture(sha256: str, place: str, alt: str) -> Picture:
    """A picture of the store for the viewer."""
    from PIL import Image

    path = state.engine().pictures.path(sha256)
    with Image.open(path) as picture:
        return Picture(state.picture_url(path, place), *picture.size, alt)


def before_and_after(run: Run, place: str) -> None:
    """A run's picture, beside the one that it started from where there is one."""
    sha = run.request.get("image")
    source = state.engine().pictures.path(sha) if sha else None
    if source is None or not source.exists():
        picture_viewer([picture_of(run, place)], key=f"{place}-{run.id}", share_of_height=0.5)
        return
    before = stored_picture(sha, f"{place}-before", "The picture that it started from")
    left, right = st.columns(2)
    with left:
        words(f"Input, run {run.parent_id}" if run.parent_id else "Input", "quiet")
        picture_viewer([before], key=f"{place}-before-{run.id}", share_of_height=0.4)
    with right:
        words(f"Output, strength {run.request['strength']:g}", "quiet")
        picture_viewer([picture_of(run, place)], key=f"{place}-{run.id}", share_of_height=0.4)


def request_buttons(run: Run, place: str) -> None:
    """Take a run's request elsewhere, or its picture home."""
    with st.container(horizontal=True, gap="small"):
        if place != "generate" and st.button(
            "Open in Generate", key=f"{place}.open.{run.id}", icon=":material/photo_camera:"
        ):
            state.put_request(state.GENERATE, RunRequest(**run.request))
            st.session_state.pop(state.OPENED_RUN, None)
            st.switch_page("views/generate.py")
        if run.image_sha256 and st.button(
            "Use as input", key=f"{place}.input.{run.id}", icon=":material/image:",
            on_click=use_as_input, args=(run,),
        ) and place != "generate":
            st.switch_page("views/generate.py")
        if run.task == "inpainting" and st.button(
            "Retry in In-paint", key=f"{place}.retry.{run.id}", icon=":material/brush:",
            help="The same picture, mask and settings",
        ):
            open_inpainting(RunRequest(**run.request), run.parent_id)
        if run.image_sha256 and st.button(
            "In-paint this", key=f"{place}.inpaint.{run.id}", icon=":material/format_paint:"
        ):
            inpaint_picture(run)
        if st.button("Compare this", key=f"{place}.compare.{run.id}", icon=":material/grid_on:"):
            state.put_request(state.COMPARE, RunRequest(**run.request))
            state.start_comparison_setup()
            st.switch_page("views/compare.py")
        path = state.engine().picture_path(run)
        if path and path.exists():
            st.download_button("Download", path.read_bytes, f"contact-sheet-{run.id}.png",
                               "image/png", key=f"{place}.download.{run.id}", on_click="ignore",
                               icon=":material/download:")  # fmt: skip


def use_as_input(run: Run) -> None:
    """Let Generate start from a run's picture, with the same prompt and model."""
    request = RunRequest(**run.request)
    info = state.engine().registry.describe(request.model_id, request.revision, request.variant)
    if "image-to-image" not in info.tasks:
        request, info = RunRequest(prompt=request.prompt), state.engine().registry.bundled()[0]
    state.put_request(state.GENERATE, request.changed(
        task="image-to-image", image=run.image_sha256, mask_image=None, height=None, width=None,
        strength=default_strength(info),
    ))  # fmt: skip
    st.session_state.pop(state.OPENED_RUN, None)


def inpaint_picture(run: Run) -> None:
    """Take a run's picture to the in-painting page, with an empty mask."""
    image = state.engine().pictures.get(run.image_sha256)
    state.put_draft(Draft(run.image_sha256, *image.size,
                          [(run.image_sha256, f"Run {run.id}", run.id)]))
    st.session_state.pop(state.OPENED_RUN, None)
    st.switch_page("views/inpaint.py")


def open_inpainting(request: RunRequest, parent_id: int | None = None) -> None:
    """Take an in-painting's picture, mask and settings back to its page."""
    pictures = state.engine().pictures
    image, mask = pictures.get(request.image), pictures.get(request.mask_image)
    state.put_draft(Draft(request.image, *image.size, [(request.image, "Picture", parent_id)],
                          mask=as_mask(mask)))
    state.put_inpainting(request)
    st.session_state.pop(state.OPENED_RUN, None)
    st.switch_page("views/inpaint.py")


@st.dialog("Run", width="medium", position="right", on_dismiss=lambda: forget_opened_run())
def run_drawer(run: Run) -> None:
    """Everything about one run, at the side of the page."""
    if run.image_sha256:
        before_and_after(run, "drawer")
    words(run.prompt or "(no prompt)")
    if run.negative_prompt:
        words(f"Negative prompt: {run.negative_prompt}", "quiet")
    words(f"{label('scheduler', run.scheduler)} · {run.num_inference_steps} steps · guidance "
          f"{run.guidance_scale:g} · seed {run.seed} · {run.model_id} · "
          f"{run.datetime_utc[:19].replace('T', ' ')} UTC", "quiet")  # fmt: skip
    kept_notice(run)
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

"""The fields of a request as widgets; `without` names those that an axis varies."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterable
from pathlib import Path

import streamlit as st

from dashboard import state
from dashboard.components.masked import picture_notes
from dashboard.components.picture import picture_viewer
from dashboard.components.text import notice, words
from dashboard.form.model import fitting_schedulers, forget_carried, page_model, takes
from dashboard.last_net import last_net
from dashboard.runs import masked_request, stored_picture
from dashboard.state import PageState
from pipelines.axes import label
from pipelines.chain import default_strength
from pipelines.errors import PipelineError
from pipelines.fields import choices, description
from pipelines.inpainting.pictures_in import open_picture
from pipelines.models.hosted import what_leaves
from pipelines.notation import number_text
from pipelines.painting.execution import attention_backends, caches, compile_obstacle
from pipelines.postcards.vocabulary import (
    CAPTIONED_MODELS,
    EXAMPLE_PROMPTS,
    known_words,
    unknown_words,
)
from pipelines.request import RunRequest, limits
from pipelines.schedulers import BY_KEY, known_scheduler, scheduler_info

TASK_LABELS = {"text-to-image": "Text to image", "image-to-image": "Image to image",
               "inpainting": "In-painting", "unconditional": "Unconditional"}


def task_control(page: PageState, without: Collection[str] = ()) -> None:
    """What is made of what, where the model can do several things."""
    info, current = page_model(page), page.get("task")
    tasks = [task for task in (info.tasks if info else ()) if task != "inpainting"]
    options = [*tasks, *([] if current in tasks else [current])]
    if len(options) > 1:
        st.radio("Task", options, format_func=TASK_LABELS.get, **page.kept("task"),
                 horizontal=True, label_visibility="collapsed", on_change=adopt_strength,
                 args=(page,))
    if current == "inpainting":
        mask_control(page, without)
    elif current == "image-to-image":
        image_control(page, without)
    extra_controls(page)


@last_net()
def adopt_strength(page: PageState) -> None:
    """Another task begins at the strength that is usual with the model."""
    if info := page_model(page):
        page.set("strength", default_strength(info))


def image_control(page: PageState, without: Collection[str] = ()) -> None:
    """The picture to start from: an upload, or the one that a run brought along; its strength."""
    picture_control(page, "image", "Picture to start from")
    strength_control(page, without)


def mask_control(page: PageState, without: Collection[str] = ()) -> None:
    """Picture and mask of an in-painting, which are made on its own page, and the strength."""
    try:
        request = page.request()
    except PipelineError:  # told elsewhere on the page
        pass
    else:
        masked_request(request, page.key("mask"))
    strength_control(page, without)


def strength_control(page: PageState, without: Collection[str] = ()) -> None:
    info = page_model(page)
    if "strength" not in without and not (info and info.hosted):
        st.slider("Strength", *limits("strength"), step=0.05, **page.kept("strength"),
                  on_change=lambda: page.set("strength", round(page.get("strength"), 2)),
                  help="How much of the denoising runs: near 0 the picture stays, at 1 only its "
                       "colours and shapes hint at it.")


def picture_control(page: PageState, name: str, label: str) -> None:
    """An upload for a field that names a picture, and the picture that is there."""
    upload, problem, viewer = f"{name}.upload", f"{name}.problem", page.key(f"{name}.input")

    def take() -> None:
        page.set(problem, None)
        if file := page.get(upload):
            try:
                picture = open_picture(file.getvalue(), file.name)
                page.set(name, state.engine().pictures.put(picture))
            except PipelineError as error:
                page.set(problem, str(error))

    sha = page.get(name)
    shown = state.engine().pictures.whole(sha)
    drop, picture = st.columns([2, 1], vertical_alignment="center") if shown else (st, None)
    drop.file_uploader(label, ["png", "jpg", "jpeg", "webp"], key=page.key(upload),
                       on_change=take)
    if shown:
        with picture:
            picture_viewer([stored_picture(sha, viewer, label)], key=viewer, share_of_height=0.18)
        picture_notes(sha)
    if page.get(problem):
        notice("error", page.get(problem))


def extra_controls(page: PageState) -> None:
    """What a ControlNet, an adapter or a class-conditional model takes beside the prompt."""
    info = page_model(page)
    extras = info.extra_inputs(page.get("task")) if info else {}
    if "control_image" in extras:
        picture_control(page, "control_image", "Control image: edges, depth or pose to follow")
    labels = {"control_mode": "Control mode, a number of the model card",
              "class_label": "Class label, a number"}
    for name in labels.keys() & extras.keys():
        st.number_input(labels[name], *limits(name), value=None, step=1, **page.kept(name),
                        placeholder="needed" if extras[name] else "any")


def prompt_control(page: PageState, without: Collection[str] = ()) -> None:
    """Prompt with one-click examples, and the negative prompt."""
    if "prompt" not in without and takes(page, "prompt"):
        st.text_area("Prompt", height=84, placeholder="What shall the picture show?",
                     **page.kept("prompt"))
    if "negative_prompt" not in without and takes(page, "negative_prompt"):
        st.text_area("Negative prompt", height=68, **page.kept("negative_prompt"),
                     placeholder="What shall it not show?")


def example_prompts(page: PageState) -> None:
    """Prompts of the bundled model to start from, and the words that it knows."""
    if page.get("model_id") not in CAPTIONED_MODELS:
        return

    def take(prompt: str) -> None:
        page.set("prompt", prompt)

    with st.popover("Examples", icon=":material/lightbulb:", type="tertiary"):
        words(f"Words it knows: {', '.join(sorted(known_words()))}.", "quiet")
        with st.container(gap=None):
            for number, prompt in enumerate(EXAMPLE_PROMPTS):
                st.button(prompt, key=page.key(f"example.{number}"), on_click=take, args=(prompt,),
                          type="tertiary")


def unknown_words_note(request: RunRequest, *prompts: str) -> None:
    """A gentle note where the bundled model does not know words of the prompts."""
    if request.model_id not in CAPTIONED_MODELS:
        return
    adapters = [Path(lora.path).stem for lora in request.loras]
    unknown = list(dict.fromkeys(
        word for prompt in prompts for word in unknown_words(prompt, adapters)))
    if unknown:
        listed = ", ".join(unknown[:8]) + (" and more" if len(unknown) > 8 else "")
        notice("note", f"{request.model_id} does not know: {listed}. It paints postcards of "
                       "simple things; the examples show its words.")


def hosted_notice(requests: Iterable[RunRequest]) -> None:
    """What leaves this machine, and to whom, where a provider makes some of the pictures."""
    for sentence in what_leaves(requests):
        notice("note", sentence)


def scheduler_text(key: str) -> str:
    """What the literature says of a scheduler, its paper as a link."""
    info = scheduler_info(key)
    if not info.order:
        return f"{info.family}, {info.paper}"
    noise = "stochastic" if info.stochastic else "deterministic"
    count = info.evaluations_per_step
    calls = f"{count} evaluation{'s' * (count > 1)} per step"
    paper = re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", info.paper)
    return f"{info.family} · order {info.order} · {noise} · {calls}  \n{paper}"


def scheduler_control(page: PageState) -> None:
    info = page_model(page)
    default = info.default_scheduler if info else None

    def show(key: str) -> str:
        if key != "default":
            return label("scheduler", key)
        return (f"Default ({BY_KEY[default].label})" if default in BY_KEY
                else "Default (the model's own)")

    current = page.get("scheduler")
    options = ["default", *fitting_schedulers(page)]
    chosen = st.selectbox("Scheduler", options + [current] * (current not in options),
                          format_func=show, **page.kept("scheduler"), accept_new_options=True,
                          help="Type class: and a name for any scheduler class of diffusers.")
    scheduler = default if chosen == "default" else chosen
    if known_scheduler(scheduler or ""):
        st.caption(scheduler_text(scheduler))


def number_controls(page: PageState, without: Collection[str] = ()) -> None:
    """num_inference_steps, guidance_scale and the seed with its dice."""
    info = page_model(page)

    def own(name: str) -> str:
        value = getattr(info, name, None)
        return "the model's own" if value is None else number_text(value)

    left, right = st.columns(2)
    if "num_inference_steps" not in without:
        left.number_input("num_inference_steps", *limits("num_inference_steps"), value=None, step=1,
                          placeholder=own("num_inference_steps"),
                          **page.kept("num_inference_steps"))
    if "guidance_scale" not in without and takes(page, "guidance_scale"):
        place = right if "num_inference_steps" not in without else left
        place.number_input("guidance_scale", *limits("guidance_scale"), value=None, step=0.5,
                           format="%g", placeholder=own("guidance_scale"),
                           **page.kept("guidance_scale"),
                           help=description("guidance_scale"))
    if "seed" not in without:
        seed_control(page)


def seed_control(page: PageState) -> None:
    def roll() -> None:
        page.set("seed", str(secrets.randbelow(2**32)))

    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.text_input("Seed", **page.kept("seed"),
                      help=description("seed"))
        st.button("Roll", icon=":material/casino:", on_click=roll, key=page.key("dice"),
                  help="Another seed")


def size_controls(page: PageState, without: Collection[str] = ()) -> None:
    info = page_model(page)
    if page.get("task") == "unconditional" and not takes(page, "height"):
        return
    sizes = {"width": info.width, "height": info.height} if info else {}
    multiple = info.size_multiple if info else 8
    for place, name in zip(st.columns(2), ("width", "height"), strict=True):
        if name not in without:
            text = f"{sizes[name]} px" if sizes.get(name) else "the model's own"
            place.number_input(name.capitalize(), *limits(name), value=None, step=multiple,
                               **page.kept(name), placeholder=text,
                               help="Both, or neither: the model's own." if info and info.hosted
                               else f"Multiples of {multiple} px; empty: the model's own, or that "
                                    "of the picture to start from.")


def advanced_controls(page: PageState, without: Collection[str] = ()) -> None:
    labels = {"guidance_rescale": "Guidance rescale", "eta": "Eta (DDIM)"}
    shown = [name for name in labels if name not in without and takes(page, name)]
    for place, name in zip(st.columns(2), shown, strict=False):
        place.number_input(labels[name], *limits(name), step=0.1, format="%g",
                           **page.kept(name))
    st.text_input("Scheduler options", **page.kept("scheduler_options"),
                  placeholder='{"use_karras_sigmas": true}',
                  help="Constructor options of the diffusers scheduler, as JSON.")
    st.text_area("LoRA adapters", **page.kept("loras"), height=68,
                 placeholder="style.safetensors = 0.8",
                 help="One per line: a .safetensors file, a folder, or a Hub id in the cache; "
                      "behind = its weight, else 1. JSON names any path: "
                      '`{"path": "rank=8", "weight": 0.5}`.')
    left, middle, right = st.columns(3)
    left.selectbox("dtype", [None, *choices("torch_dtype")], **page.kept("torch_dtype"),
                   format_func=lambda name: name or "the device's", placeholder="the device's",
                   help=description("torch_dtype"))
    middle.selectbox("Memory", choices("memory_policy"), **page.kept("memory_policy"),
                     help=description("memory_policy"))
    right.selectbox("Quantise", [None, *choices("quantization")], **page.kept("quantization"),
                    format_func=lambda name: name or "no", placeholder="no",
                    help=description("quantization"))
    execution_controls(page, without)
    carried = page.get("carried") or {}
    if set(carried) - {"mask_image"}:
        st.text("Also set: " + ", ".join(f"{name} {value}" for name, value in carried.items()
                                         if name != "mask_image"))
    if set(carried) - state.MASK_FIELDS:
        st.button("Forget these", key=page.key("forget"), on_click=forget_carried, args=(page,))


def execution_controls(page: PageState, without: Collection[str] = ()) -> None:
    """How the denoiser computes, as far as there is a choice for this model on this device."""
    info, device = page_model(page), state.engine().registry.device
    if info is None or info.hosted:
        return
    fitting = {"attention_backend": attention_backends(info, device), "cache": caches(info)}
    labels = {"attention_backend": "Attention", "cache": "Cache"}
    *places, last = st.columns(3, vertical_alignment="bottom")
    for place, (name, text) in zip(places, labels.items(), strict=True):
        current = page.get(name)
        options = list(dict.fromkeys([*fitting[name], current]))
        if name not in without and len(options) > 1:
            place.selectbox(text, options, **page.kept(name), help=description(name),
                            format_func=lambda value: value.strip("_").replace("_", " "))
    if "compile" not in without and not compile_obstacle(device):
        last.toggle("Compile", **page.kept("compile"),
                    help=description("compile"))

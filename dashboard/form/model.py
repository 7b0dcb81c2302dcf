"""Which model a page works with, what it takes, and the defaults that it brings."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.state import KEEP
from pipelines.chain import default_strength
from pipelines.errors import PipelineError
from pipelines.models.info import ModelInfo
from pipelines.schedulers import BY_KEY


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


def fitting_schedulers(page: str) -> list[str]:
    """Keys of the schedulers that go with a page's model; all where the model is unknown."""
    info = page_model(page)
    return [scheduler.key for scheduler in info.schedulers] if info else list(BY_KEY)


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

"""Which model a page works with, what it takes, and the defaults that it brings."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.last_net import last_net
from dashboard.state import PageState
from pipelines.chain import default_strength
from pipelines.errors import PipelineError
from pipelines.fields import EXTRA_FIELDS, MODEL_FIELDS, WIDGET_FIELDS
from pipelines.models.info import ModelInfo
from pipelines.request import DEFAULTS, Lora, exists
from pipelines.schedulers import BY_KEY


def page_model(page: PageState) -> ModelInfo | None:
    """What a page's model says of itself, None where it is unknown."""
    carried = page.get("carried") or {}
    try:
        return state.engine().registry.describe(
            page.get("model_id") or "", carried.get("revision"), carried.get("variant"))
    except PipelineError:
        return None


def takes(page: PageState, name: str) -> bool:
    """Whether a field has an effect with a page's model and task; yes for an unknown model."""
    info = page_model(page)
    return info is None or info.takes(page.get("task"), name)


def fitting_schedulers(page: PageState) -> list[str]:
    """Keys of the schedulers that go with a page's model; all where the model is unknown."""
    info = page_model(page)
    return [scheduler.key for scheduler in info.schedulers] if info else list(BY_KEY)


@last_net()
def adopt_defaults(page: PageState) -> None:
    """Another model starts at its own steps, guidance, size and scheduler."""
    forget_carried(page)
    info = page_model(page)
    if info is None:
        return
    values = {name: state.widget_value(name, DEFAULTS[name])
              for name in (*MODEL_FIELDS, *EXTRA_FIELDS) if name in WIDGET_FIELDS}
    values["strength"] = default_strength(info)
    if page.get("task") not in info.tasks:
        values["task"] = info.task_for()
    for name, value in values.items():
        page.set(name, value)


def adopt_model(page: PageState) -> None:
    """A model was chosen or typed: the spaces around it count only where they are the path's."""
    typed = page.get("model_id") or ""
    page.set("model_id", typed if exists(typed) else typed.strip())
    adopt_defaults(page)


def forget_carried(page: PageState) -> None:
    """Drop what a request brought along, but for the mask: without it there is no in-painting."""
    carried = page.get("carried") or {}
    page.set("carried", {name: value for name, value in carried.items()
                         if name in state.MASK_FIELDS})


def use_model(page: PageState, model_id: str, variant: str | None, revision: str | None) -> None:
    """Let a page start from a model, at the model's own steps and guidance."""
    page.start_request()
    page.set("model_id", model_id)
    adopt_defaults(page)
    carried = {"variant": variant, "revision": revision}
    page.set("carried", {k: v for k, v in carried.items() if v})


def use_lora(page: PageState, path: str) -> None:
    """Add an adapter to those of a page."""
    page.start_request()
    lines = [*(page.get("loras") or "").splitlines(), str(Lora(path=path))]
    page.set("loras", "\n".join(dict.fromkeys(lines)))


def model_options(current: str | None) -> list[str]:
    """Ids to choose from, the current one among them."""
    offered = state.offered()
    return [*offered, *([current] if current and current not in offered else [])]


def model_control(page: PageState) -> None:
    """The model by id: bundled ones, registered folders, what lies in the Hub's cache."""
    current = page.get("model_id")
    st.selectbox("Model", model_options(current), **page.kept("model_id"),
                 accept_new_options=True, on_change=adopt_model, args=(page,),
                 help="Bundled, registered or downloaded models; the path of a diffusers folder "
                      "or of a .safetensors checkpoint can be typed, or hf-inference:OWNER/NAME"
                      "@PROVIDER for a model that a provider runs (the prompt is sent to it). More "
                      "on the page Hub.")

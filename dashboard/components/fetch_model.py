"""What a Hub has of one model, and how to get it, for every page that wants a model."""

from __future__ import annotations

import time
from dataclasses import replace

import streamlit as st

from dashboard import state
from dashboard.components.downloads import download_details
from dashboard.components.text import notice, words
from dashboard.last_net import polled
from dashboard.state import HUB
from pipelines.errors import GatedError, HubError, PipelineError
from pipelines.hub.cache import here_state, missing_bytes
from pipelines.hub.download import SPARE, free_bytes
from pipelines.hub.model import ModelDetails, ModelSummary
from pipelines.hub.plan import checkpoint_files, size_text
from pipelines.hub.wording import gated_text

CHOICES = ("revision", "variant", "file")  # about one model, by widgets that may be out of sight
ASK_AGAIN = 60.0  # seconds


def choice_key(model_id: str, name: str) -> str:
    return HUB.key(f"{name}.{model_id}")


def chosen(model_id: str) -> list[str | None]:
    """The choices about one model, as CHOICES has them."""
    values = [HUB.get(f"{name}.{model_id}") for name in CHOICES]
    return [(value or "").strip() or None for value in values]


def forget_choices(model_id: str) -> None:
    for name in CHOICES:
        HUB.pop(f"{name}.{model_id}")


def model_details(model_id: str) -> ModelDetails:
    """What the Hub says of a model, asked once a minute; what is here is looked at each time."""
    hub = state.hub()
    question = (model_id, *chosen(model_id))
    asked, details, when = HUB.get("details", (None, None, 0.0))
    if asked != question or time.monotonic() - when > ASK_AGAIN:
        with st.spinner("Reading the model's files and card…", show_time=True):
            details = hub.details(*question)
        HUB.set("details", (question, details, time.monotonic()))
    if details.plan:
        here = here_state(details.plan, hub.cache_dir)
        details = replace(details, model=replace(details.model, here=here))
    return details


def fetch_model(details: ModelDetails) -> None:
    """Choices, the download button, or the download on its way."""
    model, plan, hub = details.model, details.plan, state.hub()
    download = state.downloads().latest(model.model_id)
    if download and (download.active or download.status == "failed"):
        polled(download_details)(download)
        return
    if download and download.status == "cancelled":
        notice("note", "Cancelled. Files that were whole are kept in the cache.")
    if len(plan.variants) > 1:
        names = [variant or "" for variant in plan.variants]
        st.selectbox("Variant", names, index=names.index(plan.variant or ""),
                     key=choice_key(model.model_id, "variant"), **state.KEEP,
                     format_func=lambda name: name or "plain weights")
    single = checkpoint_files(details.files)
    if plan.kind == "checkpoint" and len(single) > 1:
        names = [file.path for file in single]
        sizes = {file.path: size_text(file.size) for file in single}
        st.selectbox("File", names, index=names.index(plan.main_file), **state.KEEP,
                     key=choice_key(model.model_id, "file"),
                     format_func=lambda path: f"{path}, {sizes[path]}")
    if model.gated and not access(model):
        return
    if model.obstacle:
        words("It can be fetched, but not opened here.", "quiet")
    free, missing = free_bytes(hub.cache_dir), missing_bytes(plan, hub.cache_dir)
    if missing + SPARE > free:
        notice("error", f"{size_text(missing)} do not fit: {size_text(free)} are free in "
                        f"{hub.cache_dir}. Delete models on 'This machine', or set HF_HOME to a "
                        "folder on a larger disk.")
        return
    label = (f"Fetch the rest: {size_text(missing)}" if model.here == "partly"
             else f"Download: {plan.file_count}, {size_text(missing)}")
    if st.button(label, type="primary", icon=":material/download:", key=HUB.key("download"),
                 width="stretch"):
        try:
            state.downloads().start(hub, plan)
            st.rerun()
        except PipelineError as error:
            notice("error", str(error))
    words(f"Into {hub.cache_dir}", "quiet")


def access(model: ModelSummary) -> bool:
    """Whether this account may read a gated model; says what to accept and where if not."""
    hub = state.hub()
    try:
        hub.check_access(model.model_id)
        return True
    except GatedError:
        how = ("Access is given at once when you accept." if model.gated == "auto" else
               "The authors decide on each request.")
        notice("note", f"{gated_text(hub, model.model_id)}. {how}")
        st.button("Check again", icon=":material/refresh:", key=HUB.key("access"))
    except HubError as error:
        notice("error", str(error))
    return False

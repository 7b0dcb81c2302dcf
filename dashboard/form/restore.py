"""Settings out of a file that is dropped on a page, or out of the page's address."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import streamlit as st

from dashboard import state
from dashboard.components.text import notice, words
from dashboard.last_net import last_net
from dashboard.state import PageState
from pipelines.comparison import Comparison
from pipelines.errors import PipelineError
from pipelines.fields import MASK_OPTIONS, PICTURES
from pipelines.hub.folders import models_here
from pipelines.provenance.link import read_link
from pipelines.provenance.restore import Restored, restore
from pipelines.request import DEFAULTS, RunRequest

TYPES = ["png", "jpg", "jpeg", "webp", "avif", "json", "yaml", "yml", "html"]
SHOWN = 8  # notes that are seen at once
LINK = "recipe"  # the query parameter

Take = Callable[[Comparison], list[str]]


def restore_control(page: PageState, take: Take, own_pictures: bool = False) -> None:
    """A place for a picture, recipe or exported page whose settings a page shall take; `take` fills
    the page and gives back what it left out. What could not be taken is listed. With
    `own_pictures` the page has pictures of its own, and those of the file do not matter."""
    upload = page.key("restore.upload")
    with st.container(key=f"{page.name}-restore", gap="small"):  # one place, whatever is in it
        st.file_uploader("Drop a picture here to take its settings", TYPES, key=upload,
                         on_change=_take_file, args=(page, take, own_pictures),
                         help="A picture of this program, A1111, Forge, ComfyUI, InvokeAI, "
                              "SwarmUI, NovelAI or with the arguments of a diffusers call; a "
                              "recipe (JSON, YAML); an exported page (HTML). The picture itself "
                              "is not used.")
        _told(page)


def _told(page: PageState) -> None:
    if problem := page.get("restore.problem"):
        notice("error", problem)
    if told := page.get("restore.told"):
        title, notes = told
        notice("good", title)
        if notes:
            notice("note", "\n".join(notes[:SHOWN]))
        if notes[SHOWN:]:
            with st.expander(f"{len(notes) - SHOWN} more notes"):
                for note in notes[SHOWN:]:
                    words(note, "quiet")


@last_net()
def _take_file(page: PageState, take: Take, own_pictures: bool) -> None:
    file = page.get("restore.upload")
    page.set("restore.problem", None)
    page.set("restore.told", None)
    if file is not None:
        _take(page, take, file.getvalue(), file.name, own_pictures)


def _take(
    page: PageState, take: Take, data: bytes, name: str, own_pictures: bool = False
) -> None:
    engine = state.engine()
    try:
        restored = restore(data, models_here(engine), engine.pictures, name)
        comparison, notes = ((restored.comparison, list(restored.notes)) if own_pictures
                             else with_pictures_here(restored))
        notes += take(comparison)
        page.set("restore.told", (f"Settings of {name}, written by {restored.program}", notes))
    except PipelineError as error:
        page.set("restore.problem", str(error))


def with_pictures_here(restored: Restored) -> tuple[Comparison, list[str]]:
    """The comparison without pictures that are not on this machine, and all notes: what needs one
    of them becomes text-to-image."""
    request, notes = restored.request, list(restored.notes)
    lost = {name for name in PICTURES if getattr(request, name)
            and not state.engine().pictures.whole(getattr(request, name))}
    changes = dict.fromkeys(lost)
    if lost & {"image", "mask_image"}:
        notes.append(f"task: {request.task} needs that picture; text-to-image until one is given")
        changes |= {name: DEFAULTS[name] for name in ("image", "mask_image", "task", *MASK_OPTIONS)}
    if not changes:
        return restored.comparison, notes
    return replace(restored.comparison, base=request.changed(**changes)), notes


def take_link(page: PageState, take: Take) -> None:
    """Take the recipe of the page's address, once."""
    if text := st.query_params.pop(LINK, None):
        try:
            _take(page, take, read_link(text), "this link")
        except PipelineError as error:
            page.set("restore.problem", str(error))


def take_request(put: Callable[[RunRequest], None], comparison: Comparison) -> list[str]:
    """Fill a page of one request; the axes of a comparison are left out, and that is said."""
    put(comparison.base)
    axes = ", ".join(axis.name for axis in comparison.axes)
    return [f"its axes are left out here ({axes}); the page Compare takes them"] if axes else []


def request_control(
    page: PageState, put: Callable[[RunRequest], None], own_pictures: bool = False
) -> None:
    """`restore_control` for a page of one request."""
    restore_control(page, functools.partial(take_request, put), own_pictures)

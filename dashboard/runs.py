"""A run on any page: its picture, the buttons that take it elsewhere, its drawer."""

from __future__ import annotations

import functools

import streamlit as st

from dashboard import state
from dashboard.components.masked import masked_picture, stored_summary
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.run_details import (
    alt_text,
    guidance_text,
    kept_notice,
    run_measurements,
    run_record,
    steps_text,
)
from dashboard.components.text import notice, words
from dashboard.inpaint.draft import Draft
from dashboard.last_net import last_net
from pipelines.axes import label
from pipelines.chain import default_strength
from pipelines.errors import RequestError, StorageError
from pipelines.inpainting.masks import as_mask
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.provenance.encode import FORMATS
from pipelines.request import RunRequest
from pipelines.sheet.exports import run_file


def picture_of(run: Run, place: str, caption: str = "") -> Picture:
    """A run's picture for the viewer; an empty frame where there is none."""
    url = state.stored_url(run.image_sha256, place)
    reason = run.error or ("its file is missing or damaged" if run.image_sha256 else run.status)
    alt = alt_text(run) if url else f"No picture: {reason}"
    return Picture(url, run.width or 64, run.height or 64, alt, caption)


def stored_picture(sha256: str, place: str, alt: str) -> Picture:
    """A picture of the store for the viewer; raises StorageError where it is not whole."""
    return Picture(state.stored_url(sha256, place), *state.engine().pictures.size(sha256), alt)


def before_and_after(run: Run, place: str) -> None:
    """A run's picture, beside the one that it started from where there is one."""
    request = run.readable_request()
    sha = request.image if request else None
    if not state.engine().pictures.whole(sha):
        picture_viewer([picture_of(run, place)], key=f"{place}-{run.id}", share_of_height=0.5)
        return
    before = stored_picture(sha, f"{place}-before", "The picture that it started from")
    left, right = st.columns(2)
    with left:
        words(f"Input, run {run.parent_id}" if run.parent_id else "Input", "quiet")
        picture_viewer([before], key=f"{place}-before-{run.id}", share_of_height=0.4)
    with right:
        words(f"Output, strength {number_text(request.strength)}", "quiet")
        picture_viewer([picture_of(run, place)], key=f"{place}-{run.id}", share_of_height=0.4)


def masked_request(request: RunRequest, key: str) -> None:
    """The picture and mask of an in-painting request, and the way back to the canvas."""
    try:
        pictures = state.engine().pictures
        for picture in (request.image, request.mask_image):
            pictures.size(picture)  # raises where it is missing
        mask = stored_summary(request.mask_image, request.mask_feather, request.differential)
        below = masked_picture(request.image, mask)
    except StorageError as error:
        notice("error", str(error))
        return
    if below.button("Change picture or mask", key=f"{key}.change", icon=":material/brush:",
                    type="tertiary"):
        open_inpainting(request)


def request_buttons(run: Run, place: str) -> None:
    """Buttons that take a run to another page, and the download of its picture."""
    try:
        request = run.valid_request()
    except RequestError as error:
        notice("error", f"Its settings cannot be used again: {error}")
        request = None
    with st.container(horizontal=True, gap="small"):
        if request and place != "generate" and st.button(
            "Open in Generate", key=f"{place}.open.{run.id}", icon=":material/photo_camera:"
        ):
            state.GENERATE.put(request)
            st.session_state.pop(state.OPENED_RUN, None)
            st.switch_page("views/generate.py")
        if request and run.image_sha256:
            st.button("Use as input", key=f"{place}.input.{run.id}", icon=":material/image:",
                      on_click=use_as_input, args=(run, place))
        if request and run.task == "inpainting" and st.button(
            "Retry in In-paint", key=f"{place}.retry.{run.id}", icon=":material/brush:",
            help="The same picture, mask and settings",
        ):
            open_inpainting(request, run.parent_id)
        if run.image_sha256 and st.button(
            "In-paint this", key=f"{place}.inpaint.{run.id}", icon=":material/format_paint:"
        ):
            inpaint_picture(run)
        if request and st.button("Compare this", key=f"{place}.compare.{run.id}",
                                 icon=":material/grid_on:"):
            state.COMPARE.put(request)
            state.open_comparison_setup()
            st.switch_page("views/compare.py")
        if state.engine().picture_path(run):
            downloads(run, place)


def downloads(run: Run, place: str) -> None:
    """A run's picture in each format, made when somebody asks for it."""

    def write(suffix: str) -> bytes:
        return run_file(state.engine(), run, suffix, st.session_state.get(state.TRUTHFUL, True))[0]

    with st.popover("Download", icon=":material/download:"):
        truthful_control(f"{place}.{run.id}")
        for suffix, kind in FORMATS.items():
            st.download_button(kind.label, functools.partial(write, suffix),
                               f"contact-sheet-{run.id}{suffix}", kind.mime,
                               key=f"{place}.download.{run.id}{suffix}", on_click="ignore",
                               width="stretch", icon=":material/image:")


def truthful_control(place: str) -> None:
    """Whether files that are taken home say how their picture was made; for the whole session."""

    def keep() -> None:
        st.session_state[state.TRUTHFUL] = st.session_state[key]

    key = f"{place}.{state.TRUTHFUL}"
    st.session_state[key] = st.session_state.get(state.TRUTHFUL, True)
    st.toggle("With its settings inside", key=key, on_change=keep,
              help="Request, model, versions, the text that A1111 writes, and IPTC's word for "
                   "generated media. Off, the file holds pixels only.")


@last_net()
def use_as_input(run: Run, place: str) -> None:
    """Let Generate start from a run's picture, with the same prompt and model."""
    request = run.valid_request()
    info = state.engine().registry.describe(request.model_id, request.revision, request.variant)
    if "image-to-image" not in info.tasks:
        request, info = RunRequest(prompt=request.prompt), state.engine().registry.bundled()[0]
    state.GENERATE.put(request.changed(
        task="image-to-image", image=run.image_sha256, mask_image=None, height=None, width=None,
        strength=default_strength(info),
    ))
    st.session_state.pop(state.OPENED_RUN, None)
    if place != "generate":
        st.switch_page("views/generate.py")


def inpaint_picture(run: Run) -> None:
    """Take a run's picture to the in-painting page, with an empty mask."""
    try:
        size = state.engine().pictures.size(run.image_sha256)
    except StorageError as error:
        notice("error", str(error))
        return
    state.put_draft(Draft(run.image_sha256, *size,
                          [(run.image_sha256, f"Run {run.id}", run.id)]))
    st.session_state.pop(state.OPENED_RUN, None)
    st.switch_page("views/inpaint.py")


def open_inpainting(request: RunRequest, parent_id: int | None = None) -> None:
    """Take an in-painting's picture, mask and settings back to its page."""
    pictures = state.engine().pictures
    try:
        size, mask = pictures.size(request.image), as_mask(pictures.get(request.mask_image))
    except StorageError as error:
        notice("error", str(error))
        return
    state.put_draft(Draft(request.image, *size, [(request.image, "Picture", parent_id)],
                          mask=mask))
    state.put_inpainting(request)
    st.session_state.pop(state.OPENED_RUN, None)
    st.switch_page("views/inpaint.py")


@st.dialog("Run", width="medium", position="right", on_dismiss=lambda: forget_opened_run())
@last_net()
def run_drawer(run: Run) -> None:
    """Everything about one run, at the side of the page."""
    if run.image_sha256:
        before_and_after(run, "drawer")
    words(run.prompt or "(no prompt)")
    if run.negative_prompt:
        words(f"Negative prompt: {run.negative_prompt}", "quiet")
    words(f"{label('scheduler', run.scheduler)} · {steps_text(run)} · guidance "
          f"{guidance_text(run)} · seed {run.seed} · {run.model_id} · "
          f"{run.datetime_utc[:19].replace('T', ' ')} UTC", "quiet")
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

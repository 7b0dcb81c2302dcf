"""What was painted: a picture while it is made, the tries on it, the pictures before it."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.before_after import Try, before_after
from dashboard.components.picture import Picture, picture_viewer
from dashboard.components.queue import job_buttons, job_progress
from dashboard.components.run_details import (
    alt_text,
    kept_notice,
    run_measurements,
    run_record,
)
from dashboard.components.text import words
from dashboard.inpaint.draft import Draft
from dashboard.last_net import last_net
from dashboard.state import INPAINT
from pipelines.axes import label
from pipelines.errors import StorageError
from pipelines.inpainting import masks
from pipelines.log_tables import Run
from pipelines.notation import number_text
from pipelines.queue import Job


def progress(job: Job, draft: Draft, before: str | None) -> None:
    """The picture as it comes."""
    state.rerun_on_change()
    preview = job.preview
    width, height = preview.size if preview else (draft.width, draft.height)
    url = state.preview_url(preview) if preview else before
    picture_viewer([Picture(url, width, height, "The picture as it comes", waiting=True)],
                   key=f"in-paint-preview-{job.id}", share_of_height=0.6)
    job_progress(job)
    job_buttons(job, "page")


def results(draft: Draft) -> None:
    """The newest try under the slider, the earlier ones below it."""
    engine = state.engine()
    runs = [run for run in engine.run_log.tries(draft.image)
            if run.readable_request() and engine.picture_path(run)]
    if not runs:
        words("No try on this picture yet. Mask something and press Repaint (Ctrl+Enter).", "quiet")
        return
    tries = [Try(state.picture_url(engine.picture_path(run), f"try-{run.id}"), alt_text(run),
                 f"run {run.id}") for run in runs]
    engine.pictures.size(draft.image)  # raises where there is nothing to compare with
    before = state.stored_url(draft.image, "before")
    index = before_after(before, tries, draft.width, draft.height,
                         key=f"tries-{draft.image[:12]}-{runs[0].id}")
    show_try(draft, runs[index])


def show_try(draft: Draft, run: Run) -> None:
    """What one try kept, what it cost, and where it can go."""
    engine = state.engine()
    kept_notice(run)
    request = run.valid_request()
    words(run.prompt or "(no prompt)")
    steps = engine.registry.steps_to_run(request)
    words(f"{steps} of {run.num_inference_steps} steps ran, {run.nfe} function evaluations · "
          f"strength {number_text(request.strength)} · "
          f"{label('scheduler', run.scheduler)} · guidance "
          f"{number_text(run.guidance_scale)} · seed {run.seed} · {run.model_id}", "quiet")

    def go_on() -> None:
        draft.take(run.image_sha256, run.width, run.height, f"run {run.id}", run.id)
        INPAINT.set("side", "mask")

    @last_net()
    def again() -> None:
        try:
            draft.set_mask(masks.as_mask(state.engine().pictures.get(request.mask_image)))
        except StorageError as error:
            INPAINT.set("problem", str(error))
            return
        state.put_inpainting(request)
        INPAINT.set("side", "mask")

    with st.container(horizontal=True, gap="small"):
        st.button("Go on with this picture", key=INPAINT.key(f"on.{run.id}"), on_click=go_on,
                  icon=":material/arrow_forward:")
        st.button("Its mask and settings", key=INPAINT.key(f"again.{run.id}"), on_click=again,
                  icon=":material/history:")
        st.download_button("Download", state.engine().picture_path(run).read_bytes(),
                           f"contact-sheet-{run.id}.png", "image/png", on_click="ignore",
                           key=INPAINT.key(f"download.{run.id}"), icon=":material/download:")
    with st.expander("Everything about this run", on_change="rerun",
                     key=INPAINT.key("all")) as more:
        if more.open:
            run_measurements(run)
            run_record(run)


def trail(draft: Draft) -> None:
    """The pictures that led here; each can be worked on again."""
    names = {sha: name for sha, name, _ in draft.trail}
    if len(names) < 2:
        return

    @last_net()
    def back() -> None:
        sha = INPAINT.get("trail")
        try:
            size = state.engine().pictures.size(sha)
        except StorageError as error:
            INPAINT.set("problem", str(error))
            return
        draft.take(sha, *size, names[sha], None)

    INPAINT.set("trail", draft.image)
    st.segmented_control("Pictures on the way", list(names), key=INPAINT.key("trail"),
                         required=True, format_func=lambda sha: names[sha], on_change=back)

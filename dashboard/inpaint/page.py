"""In-paint: a picture, a mask, and what a model paints into it; the rest stays as it is."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.components.masked import masked_picture, picture_notes
from dashboard.components.text import notice
from dashboard.form.restore import request_control
from dashboard.inpaint.canvas import mask_panel
from dashboard.inpaint.choose import choose_picture
from dashboard.inpaint.draft import Draft
from dashboard.inpaint.settings import settings
from dashboard.inpaint.tries import progress, results, trail
from dashboard.last_net import polled
from dashboard.state import INPAINT
from pipelines.errors import PipelineError
from pipelines.fields import WIDGET_FIELDS
from pipelines.inpainting.masks import as_mask
from pipelines.request import RunRequest

# What a draft keeps of the page's values.
SETTINGS = ("count", "area", "padding", "feather", "content", "differential", *WIDGET_FIELDS)


def stage(draft: Draft) -> None:
    """The left column: the mask, or what came of it."""
    job = state.inpaint_job()
    if side := INPAINT.pop("side.next"):  # now that its widget may be set again
        INPAINT.set("side", side)
    INPAINT.start(side="mask")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        side = st.segmented_control(
            "Show", ["mask", "result"], key=INPAINT.key("side"), required=True,
            label_visibility="collapsed",
            format_func={"mask": ":material/brush: Mask", "result": ":material/compare: Result"
                         }.get)
        st.button("Another picture", key=INPAINT.key("other"), icon=":material/image:",
                  type="tertiary", on_click=state.put_draft, args=(None,))
    trail(draft)
    if side == "mask":
        mask_panel(draft)
        overview(draft)
        return
    draft.show("")
    if job and job.active:
        before = state.stored_url(draft.image, "waiting")
        polled(progress)(job, draft, before)
        return
    if job and job.status == "cancelled":
        notice("note", "Cancelled; what was finished is kept.")
    failed = [run for run in (job.runs if job else []) if run.status == "failed"]
    if failed or (job and job.status == "failed"):
        notice("error", failed[0].error if failed else job.error or "The job failed.")
    results(draft)


def overview(draft: Draft) -> None:
    """What will be repainted, or how to begin."""
    picture_notes(draft.image)
    mask = draft.whole_mask()
    if not mask.any():
        notice("note", "Nothing is masked yet: draw over what shall be repainted, or click on it.")
        return
    summary = draft.summary(INPAINT.get("feather"), INPAINT.get("differential"))
    masked_picture(draft.image, summary)


def work() -> None:
    """Choose a picture, or work on the one that is chosen."""
    draft, new_visit = state.draft(), state.new_visit()
    with st.empty():  # its place stays, or the uploader below is made anew and loses a file
        if problem := INPAINT.pop("problem"):
            notice("error", problem)
        elif told := INPAINT.pop("told"):
            notice("note", told)
    request_control(INPAINT, take_settings, own_pictures=True)
    if draft is None:
        choose_picture()
        return
    if new_visit:  # the browser forgot the canvas, after a reload the session its values
        draft.restart()
        for name, value in draft.settings.items():
            INPAINT.set(name, value)
    left, right = st.columns([7, 5], gap="large")
    with left:
        stage(draft)
    with right:
        settings(draft)
    draft.settings = {name: INPAINT.get(name) for name in SETTINGS}


def take_settings(request: RunRequest) -> None:
    """Fill the widgets; without a picture to work on, the request's own picture and mask are taken
    where they are here."""
    pictures = state.engine().pictures
    if state.draft() is None and pictures.whole(request.image):
        mask = pictures.get(request.mask_image) if pictures.whole(request.mask_image) else None
        state.put_draft(Draft(request.image, *pictures.size(request.image),
                              [(request.image, "Picture", None)], mask=mask and as_mask(mask)))
    state.put_inpainting(request)


def inpaint_page() -> None:
    INPAINT.start_request()
    INPAINT.set("task", "inpainting")
    INPAINT.start(count=1, area="whole", padding=16, feather=1, content="original",
                  differential=False)
    st.title("In-paint")
    try:
        work()
    except PipelineError as error:
        notice("error", str(error))

"""Choosing a picture to work on: examples, samples, the log, a file, the camera."""

from __future__ import annotations

import streamlit as st
from PIL import Image

from dashboard import state
from dashboard.components.masked import enlarged
from dashboard.components.text import words
from dashboard.inpaint.draft import Draft
from dashboard.inpaint.examples import EXAMPLES, Example, local_inpainter
from dashboard.inpaint.mask import extend_draft
from dashboard.inpaint.settings import requests_for, start
from dashboard.last_net import last_net
from dashboard.state import INPAINT
from pipelines.errors import PipelineError
from pipelines.inpainting import masks
from pipelines.inpainting.masks import Mask
from pipelines.inpainting.pictures_in import alpha_mask, open_picture
from pipelines.inpainting.samples import SAMPLES, paint_sample

TYPES = ["png", "jpg", "jpeg", "webp"]


def begin(image: Image.Image, name: str, mask: Mask | None = None) -> Draft:
    """Store a picture and work on it; feather, padding and growth are set to suit its size."""
    transparent = alpha_mask(image)
    sha = state.engine().pictures.put(image)
    draft = Draft(sha, *image.size, [(sha, name, None)], mask=mask,
                  transparency=None if transparent is None else masks.as_mask(transparent))
    state.put_draft(draft)
    short = min(image.size)
    INPAINT.set("feather", max(1, short // 48))
    INPAINT.set("padding", max(8, short // 8))
    INPAINT.set("pixels", max(1, short // 32))
    INPAINT.set("side", "mask")
    return draft


@last_net()
def take_file(name: str) -> None:
    """What the widget of that name took: `upload` or `camera`."""
    file = INPAINT.get(name)
    if file is None:
        return
    try:
        begin(open_picture(file.getvalue(), f"picture {file.name}"), name)
    except PipelineError as error:
        INPAINT.set("problem", str(error))


@last_net()
def take_sample(name: str) -> None:
    begin(paint_sample(name)[0], name)


@last_net()
def take_run(run_id: int) -> None:
    run = state.engine().run_log.run(run_id)
    if run and run.image_sha256:
        try:
            image = state.engine().pictures.get(run.image_sha256)
            begin(image, f"run {run_id}").trail[0] = (run.image_sha256, f"run {run_id}", run_id)
        except PipelineError as error:
            INPAINT.set("problem", str(error))


@last_net()
def take_example(example: Example) -> None:
    """Picture, mask, prompt and settings of an example, and its run at once."""
    try:
        image, subject = paint_sample(example.sample)
        draft = begin(image, example.sample)
        draft.mask = example.mask(subject)
        if example.sides:
            extend_draft(draft, "surroundings", **example.sides)
        state.put_inpainting(example.request(local_inpainter() if example.large else None))
        start(draft, requests_for(draft, draft.whole_mask()))
    except PipelineError as error:
        INPAINT.set("problem", str(error))


def choose_picture() -> None:
    """The first thing on the page: examples, samples, the log, a file, the camera."""
    words("Choose a picture; then mask what shall be painted anew. Every pixel outside the mask "
          "stays as it is, and each run counts them.", "quiet")
    st.markdown("#### In one click")
    inpainter = local_inpainter()
    examples = [example for example in EXAMPLES if inpainter or not example.large]
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        for number, example in enumerate(examples):
            with st.container(width=214, gap="xsmall", key=f"in-paint-example-{number}"):
                st.image(masks.overlay(*enlarged(*example.start())), width=192)
                st.button(example.title, key=INPAINT.key(f"example.{number}"), width=192,
                          on_click=take_example, args=(example,))
                words(example.text, "quiet")
    st.markdown("#### Your picture")
    left, right = st.columns(2, gap="large")
    with left:
        st.file_uploader("Upload PNG, JPEG or WebP", TYPES, key=INPAINT.key("upload"),
                         on_change=take_file, args=("upload",))
        with st.popover("Camera", icon=":material/photo_camera:"):
            st.camera_input("Take a picture", key=INPAINT.key("camera"), on_change=take_file,
                            args=("camera",))
    with right:
        runs = {run.id: run for run in state.engine().run_log.runs(status="ok", limit=200)}
        st.selectbox("A picture of the log", list(runs), index=None, key=INPAINT.key("run"),
                     disabled=not runs,
                     placeholder="Choose a run" if runs else "No run yet",
                     format_func=lambda n: f"{n} · {runs[n].prompt[:60] or '(no prompt)'}",
                     on_change=lambda: INPAINT.get("run")
                     and take_run(INPAINT.get("run")))
    st.markdown("#### Samples, painted by this program")
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        for sample in SAMPLES:
            with st.container(width=168, gap="xsmall"):
                st.image(enlarged(paint_sample(sample.name)[0])[0], width=128)
                st.button(sample.title, key=INPAINT.key(f"sample.{sample.name}"),
                          on_click=take_sample, args=(sample.name,), type="tertiary")

"""The right column of In-paint: its widgets, and the requests that they describe."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.text import forecast_text, notice, words
from dashboard.form.fields import (
    advanced_controls,
    example_prompts,
    number_controls,
    prompt_control,
    scheduler_control,
    size_controls,
    strength_control,
    unknown_words_note,
)
from dashboard.form.model import model_control
from dashboard.inpaint.draft import Draft
from dashboard.state import INPAINT
from pipelines.comparison import forecast
from pipelines.errors import PipelineError, RequestError
from pipelines.inpainting import masks
from pipelines.inpainting.canvas import painted_box, soft_mask, working_size
from pipelines.inpainting.masks import Mask
from pipelines.jobs import submit_generation
from pipelines.request import TO_COME, RunRequest, limits


def settings(draft: Draft) -> None:
    """The widgets, and the buttons that start."""
    prompt_control(INPAINT)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        go = st.button("Repaint", type="primary", icon=":material/brush:", key=INPAINT.key("go"),
                       shortcut="Ctrl+Enter")
        example_prompts(INPAINT)
        compare = st.button("Compare on this mask", key=INPAINT.key("compare"),
                            icon=":material/grid_on:")
    below = st.container(gap="small")
    strength_control(INPAINT)
    area()
    scheduler_control(INPAINT)
    number_controls(INPAINT)
    st.number_input("Number of pictures", 1, 16, step=1, **INPAINT.kept("count"),
                    help="Further pictures take the next seeds.")
    with st.expander("Model, working size and more"):
        model_control(INPAINT)
        st.toggle("Soft mask (differential)", **INPAINT.kept("differential"),
                  help="Greys of the mask are repainted by degrees: the darker, the fewer steps "
                       "(differential diffusion). Otherwise grey counts as white from half.")
        size_controls(INPAINT)
        advanced_controls(INPAINT)
    with below:
        try:
            mask = draft.whole_mask()
            if not (mask.any() or go or compare):
                words("Mask something, then it can be repainted.", "quiet")
                return
            requests = requests_for(draft, mask)
            tell(draft, requests)
            if go:
                start(draft, requests)
                st.rerun()
            if compare:
                state.COMPARE.put(stored(requests[0], mask))
                state.open_comparison_setup()
                st.switch_page("views/compare.py")
        except PipelineError as error:
            notice("error", str(error))


def area() -> None:
    """What the model sees, and how its work is blended in."""
    left, right = st.columns(2)
    with left:
        chosen = st.segmented_control(
            "What the model sees", ["whole", "masked"], **INPAINT.kept("area"), required=True,
            format_func={"whole": "Whole picture", "masked": "Masked part"}.get,
            help="The masked part is enlarged to the model's size: more detail, less context.")
        st.number_input("Feather, px", *limits("mask_feather"), **INPAINT.kept("feather"),
                        help="A soft rim around the mask. What is masked is repainted in full.")
    with right:
        st.number_input("Padding, px", *limits("padding_mask_crop"),
                        **INPAINT.kept("padding"), disabled=chosen == "whole",
                        help="Surroundings that the model sees with the masked part.")
        st.selectbox("Under the mask, start from", ["original", "fill"], **INPAINT.kept("content"),
                     format_func={"original": "the picture", "fill": "its surroundings"}.get,
                     help="The surroundings, grown over the mask, help to remove things; with "
                          "strength 1 both begin from noise.")


def requests_for(draft: Draft, mask: Mask) -> list[RunRequest]:
    """The requests that the widgets describe, one per seed; raises RequestError.

    The mask is stored when one of them runs, so that trying things leaves no files.
    """
    masked = INPAINT.get("area") == "masked"
    request = INPAINT.request(
        image=draft.image, mask_image=TO_COME, strength=INPAINT.get("strength"),
        padding_mask_crop=INPAINT.get("padding") if masked else None,
        mask_feather=INPAINT.get("feather"), masked_content=INPAINT.get("content"),
        differential=INPAINT.get("differential"),
    )
    if not draft.soft_mask(request.mask_feather, request.differential).any():
        soft_mask(request, mask)  # raises what is wrong
    return [request.changed(seed=request.seed + number) for number in range(INPAINT.get("count"))]


def stored(request: RunRequest, mask: Mask) -> RunRequest:
    """The request with its mask in the store of pictures."""
    return request.changed(mask_image=state.engine().pictures.put(masks.as_image(mask)))


def start(draft: Draft, requests: Sequence[RunRequest]) -> None:
    """Queue them on the mask as it is now."""
    mask = draft.whole_mask()
    job = submit_generation(
        state.job_queue(), [stored(request, mask) for request in requests],
        kind="inpaint", parent_id=draft.parent_id, **asked(),
    )
    INPAINT.set("job", job.id)
    INPAINT.set("side.next", "result")


def tell(draft: Draft, requests: Sequence[RunRequest]) -> None:
    """What will happen: steps, working size, cost; and what is odd about the mask."""
    request = requests[0]
    engine = state.engine()
    info = engine.registry.describe(request.model_id, request.revision, request.variant)
    request = info.fill_in(request)
    if "inpainting" not in info.tasks:
        raise RequestError(f"{info.model_id} ({info.pipeline_class}) does no in-painting; it does "
                           f"{', '.join(info.tasks)}")
    alpha = draft.soft_mask(request.mask_feather, request.differential)
    left, top, right, bottom = painted_box(request, alpha)
    size = working_size(request, info, right - left, bottom - top)
    expected = forecast(requests, engine.run_log, engine.registry)
    scale = (f", enlarged {size.scale:.3g} times" if size.scale > 1.02 else
             f", reduced to {size.scale:.0%}" if size.scale < 0.98 else "")
    steps = f"{info.steps_to_run(request)} of {request.num_inference_steps} steps run"
    st.caption(f"**{steps}** · the model sees {right - left} × {bottom - top} px{scale} · "
               f"{len(requests)} picture{'s' * (len(requests) > 1)} · "
               + forecast_text(expected.seconds))
    if draft.summary(request.mask_feather, request.differential).share == 1:
        notice("note", "The mask covers the whole picture: nothing of it would be kept.")
    unknown_words_note(request, request.prompt, request.negative_prompt)

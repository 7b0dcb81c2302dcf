"""What the lessons ask of the bundled model, remembered while the dashboard runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from dashboard import state
from pipelines.guidance_methods import CFG

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from pipelines.lessons.postcards import Trace


def trace(
    prompts: Sequence[str],
    seeds: Sequence[int],
    scheduler: str,
    num_inference_steps: int,
    scales: float | Sequence[float],
    guidance_method: str = CFG,
) -> Trace:
    """postcards' way to one picture for each prompt and seed, with its guidance scale or one for
    all."""
    return waiting(_trace, tuple(prompts), tuple(seeds), scheduler, num_inference_steps,
                    scales if isinstance(scales, float) else tuple(scales), guidance_method)


def waiting(compute, *arguments):
    """Compute on the bundled model, and say that the page waits; behind the queue's work, where
    there is some."""
    busy = state.job_queue().active()
    with st.spinner("Waits for the queue …" if busy else "postcards computes …", show_time=True):
        return compute(*arguments)


@st.cache_resource(show_spinner=False, max_entries=100)
def _trace(prompts, seeds, scheduler, num_inference_steps, scales, guidance_method) -> Trace:
    import torch

    from pipelines.lessons import postcards

    with state.engine().registry.borrow(postcards.MODEL) as (model, _):
        return postcards.denoise(model, prompts, postcards.noise(seeds), scheduler,
                                 num_inference_steps, torch.tensor(scales),
                                 guidance_method=guidance_method)


def pictures(latents: Tensor) -> list[Image]:
    from pipelines.lessons import postcards

    return postcards.pictures(state.engine().registry, latents)

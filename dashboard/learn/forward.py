"""The lesson Forward: what noise leaves of a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.inpainting.pictures_in import open_picture
from pipelines.lessons import forward, plane, postcards
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from PIL.Image import Image

START = 350  # the timestep


def pose() -> None:
    three = plane.Mixture.three()
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).points(
        "data, 500 points", plane.clean_points(three)).show(
        "forward.pose", "The data: 500 points of a mixture of three Gaussians (Mixture.sample). "
        "Noise is added to them, more with every timestep.")


def play() -> None:
    PAGE.start(**{"forward.timestep": START, "forward.schedule": "scaled_linear"})
    timestep = st.slider("timestep", 1, forward.TIMESTEPS - 1, **PAGE.kept("forward.timestep"))
    left, right = st.columns(2, gap="medium")
    with left:
        schedule = st.selectbox("noise schedule", list(forward.SCHEDULES),
                                format_func=forward.SCHEDULES.get,
                                **PAGE.kept("forward.schedule"))
        _plane(schedule, timestep)
    with right:
        _postcards(schedule, timestep)
        _ratios(timestep)


def _plane(schedule: str, timestep: int) -> None:
    three = plane.Mixture.three()
    signal, noise = forward.signal_and_noise(schedule, timestep)
    points = forward.noised(schedule, plane.clean_points(three), plane.noise_points(), timestep)
    method = "scale_noise" if schedule == "flow" else "add_noise"
    charts.Plane().lines("density of x_t, exact", plane.contours(three, signal, noise),
                         exact=True).points("x_t, 500 points", points).show(
        "forward.plane", f"x_t by {type(forward.scheduler(schedule)).__name__}.{method}, and the "
        "exact density of x_t (Mixture.log_density): again a mixture of three Gaussians, wider "
        "ones.")
    st.latex(rf"x_t = {signal:.3f}\,x_0 + {noise:.3f}\,\varepsilon")
    if schedule != "flow":
        st.latex(rf"\bar\alpha_t = {signal**2:.3f},\quad \sqrt{{1-\bar\alpha_t}} = {noise:.3f}")
    st.latex(rf"\mathrm{{SNR}} = \frac{{{signal:.3f}^2}}{{{noise:.3f}^2}} = "
             rf"{signal**2 / noise**2:.3g}")


def _postcards(schedule: str, timestep: int) -> None:
    with st.popover("Another picture", icon=":material/image:"):
        file = st.file_uploader("Picture", ["png", "jpg", "jpeg", "webp"],
                                key=PAGE.key("forward.file"))
    clean = postcards.painted()[0]
    if file:
        clean = open_picture(file.getvalue(), file.name).convert("RGB").resize((64, 64))
    seen = forward.noised(schedule, postcards.pixels([clean]), _pixel_noise(), timestep)
    latents = waiting(_latents, clean.tobytes(), clean)
    kept = forward.noised(schedule, latents, postcards.noise([0]), timestep)
    gallery("forward", [
        (clean, "x0", "The picture without noise"),
        (postcards.as_pictures(seen)[0], f"x_t of its pixels, t = {timestep}",
         f"The picture at timestep {timestep}"),
        (pictures(kept)[0], f"x_t of its latents, decoded, t = {timestep}",
         f"The picture decoded from its latents at timestep {timestep}"),
    ])
    st.caption("A picture of 64 x 64 pixels (of your own: Another picture), and its 4 x 16 x 16 "
               "latents of postcards' autoencoder (AutoencoderKL.encode, decode).")


def _pixel_noise():
    import torch

    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@st.cache_resource(show_spinner=False, max_entries=20)
def _latents(content: bytes, _picture: Image):
    with state.engine().registry.borrow(postcards.MODEL) as (model, _):
        return postcards.encode(model, [_picture])


def _ratios(timestep: int) -> None:
    rows = [{"timestep": t, "SNR": forward.snr(schedule, t), "schedule": name}
            for schedule, name in forward.SCHEDULES.items() for t in range(10, 991, 20)]
    charts.lines(rows, "timestep", "SNR", "schedule", "forward.ratios",
                 "The signal-to-noise ratio of each schedule; the dashed line is the slider's "
                 "timestep (forward.snr).", marked=timestep, log_y=True, bare=True)


def comparison() -> Comparison:
    sha = state.engine().pictures.put(postcards.painted()[0])
    base = RunRequest(task="image-to-image", image=sha, prompt="a blue car on a road by day",
                      strength=0.5)
    here = PAGE.get("forward.timestep", START) / forward.TIMESTEPS
    strengths = sorted({0.2, 0.4, 0.6, 0.8, 1.0, max(0.05, round(here, 2))})
    return Comparison.parse(base, [f"strength={', '.join(map(str, strengths))}", "seed=0..2"])


LESSON = Lesson("forward", "Forward", lambda: forward.QUESTION, pose, play, forward.check,
                comparison, in_study=False)  # a study has prompts, and no pictures

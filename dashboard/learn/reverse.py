"""The lesson Reverse: from noise to a picture, step by step."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, trace
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.lessons import plane, postcards, reverse
from pipelines.lessons.question import Question
from pipelines.request import RunRequest

ARROWS = 60


def pose() -> None:
    charts.Plane(3.2).lines("the data's density, exact", plane.contours(plane.Mixture.three()),
                            exact=True).points("noise, 500 points", plane.noise_points()).show(
        "reverse.pose", f"Noise, before the first of {reverse.STEPS} steps of DDIM: what will the "
        "network's first guesses of the end look like?")


def play() -> None:
    PAGE.start(**{"reverse.step": reverse.STEPS // 4})
    step = st.slider("step", 1, reverse.STEPS, **PAGE.kept("reverse.step"))
    left, right = st.columns(2, gap="medium")
    with left:
        _plane(step)
    with right:
        _postcards(step)


def _plane(step: int) -> None:
    three, made = plane.Mixture.three(), plane.run(reverse.SOLVER, reverse.STEPS)
    seen, (signal, noise) = made.seen[step - 1], made.scales[step - 1]
    x0 = three.x0(seen, signal, noise)
    pairs = plane.lines_between(seen[:ARROWS], x0[:ARROWS])
    charts.Plane(3.2).lines("density of x_t, exact", plane.contours(three, signal, noise),
                            exact=True).points("x_t", seen).points("predicted x0", x0).lines(
        f"from x_t to x0, {ARROWS} points", pairs, width=0.7).show(
        "reverse.plane", f"Step {step} of {reverse.STEPS} of DDIMScheduler: x_t, and the mean of "
        "all clean points that each may come from (Mixture.x0). Early, all guesses lie near the "
        "mean of the data; later each goes to one Gaussian.")
    st.latex(r"x_t = a\,x_0 + b\,\varepsilon,\quad \hat x_0 = (x_t - b\,\hat\varepsilon)/a")
    st.latex(rf"a = {signal:.3f},\quad b = {noise:.3f}")


def _postcards(step: int) -> None:
    way = trace([postcards.PROMPT], [0], reverse.SOLVER, reverse.STEPS, reverse.GUIDANCE)
    made = pictures(way.pictured(step))
    names = (f"x_t at step {step}", "predicted x0", "the end")
    gallery("reverse", [(picture, name, f"{postcards.PROMPT}: {name}")
                        for picture, name in zip(made, names, strict=True)])
    gallery("reverse-channels", [
        (picture, f"channel {number}", f"Channel {number} of the predicted latents at step {step}")
        for number, picture in enumerate(reverse.channels(way.x0[step - 1, 0]))])
    st.caption(f"postcards, “{postcards.PROMPT}”, seed 0: decoded latents (AutoencoderKL.decode), "
               "below them the four channels of the predicted x0 (previews.predicted_x0), each "
               "16 x 16.")
    rows = [{"step": number, "share": share, "part": part}
            for part, shares in reverse.shares(way).items()
            for number, share in enumerate(shares, 1) if share > -0.5]
    charts.lines(rows, "step", "share", "part", "reverse.shares",
                 "The share of the final latents' layout (means of 4 x 4 blocks) and detail (what "
                 "these leave) that the predicted x0 holds at each step (reverse.shares); the "
                 "dashed line is the slider's step.", marked=step)


def question() -> Question:
    return reverse.question(state.engine().registry)


def check(case: int) -> Question:
    return reverse.check(state.engine().registry, case)


def comparison() -> Comparison:
    base = RunRequest(prompt=postcards.PROMPT, guidance_scale=reverse.GUIDANCE)
    return Comparison.parse(base, ["scheduler=ddim,ddpm", "num_inference_steps=3,5,7,10,20"])


LESSON = Lesson("reverse", "Reverse", question, pose, play, check, comparison)

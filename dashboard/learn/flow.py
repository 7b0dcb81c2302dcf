"""The lesson Flow matching: curved paths, and the same marginals as diffusion's."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, trace, waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.lessons import flow, plane, postcards
from pipelines.request import RunRequest

PATHS = 24
GUIDANCE = 3.0


def pose() -> None:
    three = plane.Mixture.three()
    pairs = plane.lines_between(plane.noise_points(60), plane.clean_points(three, 60))
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).lines(
        "60 lines from noise to data", pairs,
        width=0.8).show(
        "flow.pose", "What flow matching is trained on: straight lines from a noise to a point of "
        "the data, each pair drawn at random. The network sees a place and a time, and learns the "
        "mean of all velocities that pass there.")


def play() -> None:
    PAGE.start(**{"flow.steps": 5, "flow.share": 0.6})
    steps = st.select_slider("Euler steps", flow.STEPS, **PAGE.kept("flow.steps"))
    left, right = st.columns(2, gap="medium")
    with left:
        _paths(steps)
    with right:
        _postcards(steps)
        _marginals()


def _paths(steps: int) -> None:
    three, exact = plane.Mixture.three(), plane.run("flow_euler", flow.MANY)
    made = plane.run("flow_euler", steps)
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).lines(
        f"paths of {PATHS} points", exact.ways(PATHS)).lines(
        f"the same in {steps} Euler steps", made.ways(PATHS)).points(
        "500 ends", made.path.end).show(
        "flow.paths", "FlowMatchEulerDiscreteScheduler.step with a perfect network "
        f"(Mixture.prediction): in {steps} steps the points end {made.error:.3f} (root mean "
        "square) from the exact ones (driving.exact_end).")
    st.latex(r"v(x, s) = \mathbb{E}[\varepsilon - x_0 \mid x],\quad "
             rf"x \leftarrow x - \tfrac{{1}}{{{steps}}}\,v(x, s)")


def _postcards(steps: int) -> None:
    few = min(steps, 20)
    as_flow = pictures(waiting(_as_flow, few))[0]
    euler = pictures(trace([postcards.PROMPT], [0], "euler", few, GUIDANCE).latents)[0]
    gallery("flow", [
        (as_flow, f"as flow matching, {few} steps",
         f"{postcards.PROMPT}, by FlowMatchEulerDiscreteScheduler in {few} steps"),
        (euler, f"as diffusion, {few} steps",
         f"{postcards.PROMPT}, by EulerDiscreteScheduler in {few} steps"),
    ])
    more = " The slider goes on alone above 20 steps." if steps > few else ""
    st.caption("One network, both views: postcards was trained as diffusion. Scaled by 1 / (a + b) "
               "its x_t is flow matching's, its prediction a velocity (flow.denoise_as_flow): the "
               "two pictures come together with more steps, now "
               f"{postcards.difference(as_flow, euler):.1f} of 255 apart.{more}")


@st.cache_resource(show_spinner=False, max_entries=20)
def _as_flow(steps: int):
    with state.engine().registry.borrow(postcards.MODEL) as (model, _):
        return flow.denoise_as_flow(model, postcards.PROMPT, postcards.noise([0]), steps, GUIDANCE)


def _marginals() -> None:
    share = st.slider("time s (1 is noise)", 0.05, 0.95, step=0.05, **PAGE.kept("flow.share"))
    three = plane.Mixture.three()
    clean, noise = plane.clean_points(three), plane.noise_points()
    signal, part = flow.kept_variance(share)
    charts.Plane().lines("flow's density, exact", plane.contours(three, 1 - share, share),
                         exact=True).points(
        "diffusion's x_t / (a + b)", (signal * clean + part * noise) / (signal + part)).show(
        "flow.marginals", "Diffusion's points at the same signal-to-noise ratio, scaled, lie in "
        "flow matching's exact density (Mixture.log_density): equal marginals.", 320)
    st.latex(rf"a = {signal:.3f},\ b = {part:.3f},\quad s = \tfrac{{b}}{{a+b}} = "
             rf"{part / (signal + part):.2f}")


def comparison() -> Comparison:
    base = RunRequest(prompt=postcards.PROMPT, guidance_scale=GUIDANCE)
    steps = sorted({2, 5, 10, 20, PAGE.get("flow.steps", 5)})
    return Comparison.parse(base, ["scheduler=euler,heun,dpmpp_2m",
                                   f"num_inference_steps={', '.join(map(str, steps))}"])


LESSON = Lesson("flow", "Flow matching", lambda: flow.QUESTION, pose, play, flow.check, comparison)

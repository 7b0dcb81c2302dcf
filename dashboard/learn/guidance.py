"""The lesson Guidance: two predictions, and what their combination samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, trace
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.fields import description
from pipelines.guidance_methods import GUIDERS
from pipelines.lessons import guidance, plane, postcards
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from pipelines.lessons.postcards import Trace

WORLDS = {"two Gaussians": guidance.two_gaussians,
          "one of three components": guidance.one_of_three}
SEEDS, STEPS = (0, 1, 2), 10
CLASSES = {name: f"diffusers.guiders.{guider.class_name}; {guider.paper}"
           for name, guider in GUIDERS.items()}


def pose() -> None:
    world = guidance.two_gaussians(1.0)
    charts.Plane().lines("p(x), exact", plane.contours(world.unconditional), exact=True).lines(
        "p(x|c), exact", plane.contours(world.conditional)).show(
        "guidance.pose", "Two Gaussians: without a condition, and with one. Lines at 50, 10 and 1 "
        "percent of the highest density (Mixture.log_density).")


def play() -> None:
    PAGE.start(**{"guidance.scale": 3.0, "guidance.world": next(iter(WORLDS)),
                  "guidance.method": guidance.METHODS[0]})
    scale = st.select_slider("guidance_scale", guidance.SCALES, format_func=lambda w: f"{w:g}",
                             **PAGE.kept("guidance.scale"))
    left, right = st.columns(2, gap="medium")
    with left:
        world = st.segmented_control("distributions", list(WORLDS), required=True,
                                     **PAGE.kept("guidance.world"))
        _plane(world, scale)
    with right:
        method = st.selectbox("guidance_method on postcards", guidance.METHODS,
                              **PAGE.kept("guidance.method"), help=description("guidance_method"))
        way = trace([postcards.PROMPT] * len(SEEDS), SEEDS, "ddim", STEPS, scale, method)
        _postcards(way, scale, method)
        _geometry(way, method)
        _vectors(world, scale)


def _plane(world: str, scale: float) -> None:
    guided = WORLDS[world](scale)
    points = guidance.guided_points(guided)
    charts.Plane().lines("p(x|c), exact", plane.contours(guided.conditional), exact=True).points(
        f"guided points, w = {scale:g}", points).show(
        "guidance.plane", f"500 points by DPMSolverMultistepScheduler.step in {guidance.STEPS} "
        f"steps with the guided prediction (Guided.prediction): standard deviation "
        f"{guidance.spread(points):.3f}; of p(x|c) itself "
        f"{guidance.spread(plane.clean_points(guided.conditional)):.3f}.")
    st.latex(r"\hat\varepsilon = \varepsilon_\varnothing + w\,(\varepsilon_c - "
             rf"\varepsilon_\varnothing),\quad w = {scale:g}")
    if world == "two Gaussians":
        exact = guidance.guided_gaussian(guided, plane.run(
            guidance.SOLVER, guidance.STEPS, guided, guidance.POINTS).path.sigmas[0])
        sharp = guidance.sharpened_gaussian(guided)
        s, wide = guidance.NARROW, guidance.WIDE
        st.latex(rf"\text{{exact: }} s^w S^{{1-w}} = {s}^{{{scale:g}}}"
                 rf"\cdot {wide:g}^{{{1 - scale:g}}} = {s**scale * wide**(1 - scale):.4f}")
        st.latex(rf"\text{{sharpened: }} (\tfrac{{w}}{{s^2}} + \tfrac{{1-w}}{{S^2}})^{{-1/2}}"
                 rf" = {sharp[1]:.3f}")
        st.caption(f"Means on the x axis: guided {exact[0]:.2f} (guidance.guided_gaussian), "
                   f"sharpened {sharp[0]:.2f}, p(x|c) {guidance.MEAN}.")


def _vectors(world: str, scale: float) -> None:
    vectors = guidance.vectors(WORLDS[world](scale))
    span = 1.15 * max(max(map(abs, vector.tolist())) for vector in vectors.values())
    drawn = charts.Plane(span)
    for name, vector in vectors.items():
        drawn.lines(name, plane.lines_between(0 * vector[None], vector[None]), width=3)
    drawn.show("guidance.vectors", "The predictions of noise as vectors at one point, "
               f"{guidance.POINT}, at noise level 1; their difference has a part parallel to the "
               "conditional prediction, which stretches it, and an orthogonal one, which turns it "
               "(guidance.split).", 340)


def _postcards(way: Trace, scale: float, method: str) -> None:
    made = pictures(way.latents)
    gallery("guidance", [(picture, f"seed {seed}", f"{postcards.PROMPT}, guidance_scale {scale:g}, "
                          f"{method}, seed {seed}")
                         for seed, picture in zip(SEEDS, made, strict=True)])
    figures = guidance.figures(made)
    middle = STEPS // 2
    conditional = way.conditional[middle].flatten(1)
    difference = conditional - way.unconditional[middle].flatten(1)
    parallel, _ = guidance.split(difference, conditional)
    share = (parallel.square().sum() / difference.square().sum()).item()
    st.caption(f"postcards, “{postcards.PROMPT}”, DDIM, {STEPS} steps, {method}: difference "
               f"between seeds {figures.diversity:.1f} of 255, saturation "
               f"{figures.saturation:.3f}, {figures.at_limit:.1%} of the values at the limit. Of "
               "the difference of its two "
               f"predictions at step {middle + 1}, {share:.1%} (of the squares) is parallel to the "
               "conditional one.")


def _geometry(way: Trace, method: str) -> None:
    rows = [{"step": step, "norm": norm, "part": part}
            for part, norms in guidance.geometry(way).items()
            for step, norm in enumerate(norms, 1)]
    charts.lines(rows, "step", "norm", "part", "guidance.geometry",
                 f"What {method} adds to the conditional prediction at each step, as norms: the "
                 "part parallel to it stretches the prediction and saturates colours, the "
                 "orthogonal one turns it towards the prompt (guidance.geometry; "
                 f"{CLASSES.get(method, 'the pipeline itself')}).", height=240)


def comparison() -> Comparison:
    base = RunRequest(prompt=postcards.PROMPT)
    if (method := PAGE.get("guidance.method", "cfg")) == "cfg":
        return Comparison.parse(base, ["guidance_scale=1,2,3,5,7.5,10,15", "seed=0..2"])
    return Comparison.parse(base, [f"guidance_method=cfg,{method}",
                                   "guidance_scale=1,2,3,5,7.5,10,15"])


LESSON = Lesson("guidance", "Guidance", lambda: guidance.QUESTION, pose, play, guidance.check,
                comparison)

"""The lesson Solvers: what more steps do."""

from __future__ import annotations

import streamlit as st

from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import pictures, trace
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.lessons import plane, postcards, solvers
from pipelines.request import RunRequest
from pipelines.schedulers import BY_KEY

ON_POSTCARDS = ("ddim", "dpmpp_2m", "euler_a")
MOST_STEPS = 40  # on postcards
PATHS = 14
GUIDANCE = 3.0


def pose() -> None:
    three = plane.Mixture.three()
    charts.Plane().lines("the data's density, exact", plane.contours(three), exact=True).points(
        "noise, 500 points", plane.noise_points()).show(
        "solvers.pose", "500 points of noise, and the density that they shall be brought to: a "
        "mixture of three Gaussians, whose perfect network is known (Mixture.epsilon).")


def play() -> None:
    PAGE.start(**{"solvers.steps": 8, "solvers.scheduler": "euler_a"})
    steps = st.select_slider("num_inference_steps", solvers.STEPS, **PAGE.kept("solvers.steps"))
    left, right = st.columns(2, gap="medium")
    with left:
        key = st.selectbox("scheduler", list(solvers.NAMES), format_func=solvers.NAMES.get,
                           **PAGE.kept("solvers.scheduler"))
        _plane(key, steps)
    with right:
        _postcards(steps)
        _errors(key)


def _plane(key: str, steps: int) -> None:
    run = plane.run(key, steps)
    three, info = plane.Mixture.three(), BY_KEY[key]
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).points(
        "exact end of each point", run.exact, exact=True).points(
        f"{info.label}, {steps} steps", run.path.end).lines(
        f"ways of {PATHS} points", run.ways(PATHS)).show(
        "solvers.plane",
        f"{info.class_name}.step, {run.path.evaluations} evaluations: its points end "
        f"{run.error:.3f} (root mean square) from the exact ends of the probability-flow "
        "equation (driving.exact_end).")
    first, second = [*run.path.sigmas, 0.0][:2]
    if first is None:
        st.latex(r"x_{i+1} = x_i + (s_{i+1} - s_i)\,v(x_i, s_i),\quad s_0 = 1")
    else:
        st.latex(r"x_{i+1} = x_i + (\sigma_{i+1} - \sigma_i)\,\varepsilon(x_i, \sigma_i)"
                 + (r" + \text{noise}" if info.stochastic else ""))
        st.latex(rf"\sigma_0 = {first:.2f},\quad \sigma_1 = {second:.2f}")
    order = solvers.order(key)
    if order:
        st.latex(rf"\text{{error}} \approx C\,N^{{-p}},\quad p = {order[0]:.2f} \pm {order[1]:.2f}")
        st.caption(f"The order p is fitted to the errors of this scheduler; its nominal order is "
                   f"{info.order}.")
    elif info.stochastic:
        st.markdown("Each step draws fresh noise: the points do not follow the equation, and have "
                    "no order of convergence to its ends.")


def _postcards(steps: int) -> None:
    few = min(steps, MOST_STEPS)
    fewer = max((n for n in solvers.STEPS if n < few), default=None)
    shown = []
    for key in ON_POSTCARDS:
        counts = [few, fewer] if fewer else [few]
        now, *before = [pictures(trace([postcards.PROMPT], [0], key, n, GUIDANCE).latents)[0]
                        for n in counts]
        moved = (f"; {postcards.difference(now, before[0]):.1f} of 255 from that of {fewer}"
                 if before else "")
        shown.append((now, f"{solvers.NAMES[key]}, {few} steps{moved}",
                      f"{postcards.PROMPT}, by {solvers.NAMES[key]} in {few} steps"))
    gallery("solvers", shown)
    more = f" The slider goes on alone above {MOST_STEPS} steps." if steps > MOST_STEPS else ""
    st.caption(f"The same on postcards: “{postcards.PROMPT}”, seed 0, guidance_scale {GUIDANCE:g}; "
               "how far each picture lies from that of fewer steps (root mean square)." + more)


def _errors(key: str) -> None:
    rows = [{"solver": solvers.NAMES[name], "evaluations": evaluations, "error": error}
            for name in dict.fromkeys((*solvers.DRAWN, key))
            for _, evaluations, error in solvers.errors(name)]
    charts.lines(rows, "evaluations", "error", "solver", "solvers.errors",
                 "Distance to the exact ends against evaluations of the network, for 1 to 80 steps "
                 "(plane.Run.error).", log_x=True, log_y=True)


def comparison() -> Comparison:
    base = RunRequest(prompt=postcards.PROMPT, guidance_scale=GUIDANCE)
    keys = dict.fromkeys((*ON_POSTCARDS, PAGE.get("solvers.scheduler", ON_POSTCARDS[0])))
    steps = sorted({2, 5, 10, 20, 40, PAGE.get("solvers.steps", 20)})
    return Comparison.parse(base, [f"scheduler={','.join(keys)}",
                                   f"num_inference_steps={', '.join(map(str, steps))}"])


LESSON = Lesson("solvers", "Solvers", lambda: solvers.QUESTION, pose, play, solvers.check,
                comparison)

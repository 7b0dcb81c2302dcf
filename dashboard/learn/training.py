"""The lesson Train your own: a small DDPM that learns while one looks."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.browser import asked
from dashboard.components.queue import job_buttons, job_progress
from dashboard.last_net import last_net, polled
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.jobs import submit_training
from pipelines.lessons import plane, postcards, strips, training
from pipelines.queue import Job
from pipelines.request import RunRequest

SEED = 0
COLUMNS = 4


def pose() -> None:
    three = plane.Mixture.three()
    charts.Plane(3.2).lines("density, exact", plane.contours(three), exact=True).points(
        "x_t at timestep 300", training.noised_points(300)).show(
        "training.pose", "What the network will see: points of the data with noise of a random "
        "timestep (DDPMScheduler.add_noise), here 300. From such a point, and its timestep, it "
        "shall tell the noise.")


def play() -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        job = _job()
        if job and job.active:
            polled(_live)(job)
        else:
            _kept()
    with right:
        _strips()


def _job() -> Job | None:
    jobs = [job for job in state.job_queue().jobs()
            if job.kind == "train" and job.row.settings.get("seed") == SEED]
    return jobs[-1] if jobs else None


def _path():
    return training.checkpoint(state.engine().home, SEED)


def _live(job: Job) -> None:
    """The training as it is by now."""
    state.rerun_on_change()
    job_progress(job)
    job_buttons(job, "page")
    if _path().exists():
        made = training.Training.load(_path())
        _points(made, max(made.points))
        _losses(made)


def _kept() -> None:
    """What was trained before, and what can be done next."""
    made = training.Training.load(_path()) if _path().exists() else training.Training(SEED)
    with st.container(horizontal=True):
        if made.step < training.STEPS:
            st.button("Go on" if made.step else "Train it now", type="primary",
                      icon=":material/play_arrow:", key=PAGE.key("training.go"), on_click=_start)
        if made.step:
            st.button("Start anew", icon=":material/restart_alt:", key=PAGE.key("training.anew"),
                      on_click=_start, args=(True,))
    if not made.points:
        st.caption("It learns while you look: a network of "
                   f"{sum(p.numel() for p in made.network.parameters()):,} weights, "
                   f"{training.STEPS:,} steps of {training.BATCH} points. It can be paused, "
                   "cancelled and gone on with, also after a restart.")
        return
    moments = sorted(made.points)
    if PAGE.get("training.moment") not in moments:
        PAGE.set("training.moment", moments[-1])
    if len(moments) > 1:
        st.select_slider("after so many steps of training", moments,
                         **PAGE.kept("training.moment"))
    _points(made, PAGE.get("training.moment"))
    _losses(made)


@last_net()
def _start(anew: bool = False) -> None:
    if anew:
        _path().unlink(missing_ok=True)
    submit_training(state.job_queue(), SEED, training.STEPS, **asked())


def _points(made: training.Training, moment: int) -> None:
    three = plane.Mixture.three()
    fresh = plane.clean_points(three, training.POINTS, 1)
    points = made.points[moment].clamp(-3, 3)
    other = plane.clean_points(three, training.POINTS, 2)
    charts.Plane(3.2).lines("density, exact", plane.contours(three), exact=True).points(
        f"made after {moment} steps", points).show(
        "training.points", f"{training.POINTS} points that DDPMScheduler.step makes of noise with "
        f"the network after {moment} steps of training (training.sample; what lies beyond the "
        "square is drawn at its rim): energy distance to points of the data "
        f"{training.energy_distance(made.points[moment], fresh):.3f}; of other points of the data "
        f"{training.energy_distance(other, fresh):.3f}.", 320)


def _losses(made: training.Training) -> None:
    least, rows = training.least_loss(), []
    for number, loss in enumerate(made.losses, 1):
        step = number * training.MEAN_OF
        rows += [{"step": step, "loss": loss, "what": "the network"},
                 {"step": step, "loss": least, "what": "a perfect network"},
                 {"step": step, "loss": 1.0, "what": "says 0"}]
    if rows:
        charts.lines(rows, "step", "loss", "what", "training.losses",
                     f"The loss, mean of {training.MEAN_OF} steps (Training.loss). No network can "
                     f"come below the perfect one, {least:.3f} (training.least_loss); one that "
                     "always says 0 has 1.", bare=True, height=220)
        st.latex(r"L = \mathbb{E}\,\|\varepsilon - \varepsilon_\theta(a_t x_0 + b_t \varepsilon, "
                 rf"t)\|^2 / 2 = {made.losses[-1]:.3f}")


@st.cache_resource(show_spinner=False)
def _drawn():
    registry = state.engine().registry
    return strips.forward_strip(registry, postcards.painted()[0]), strips.reverse_strip(registry)


def _strips() -> None:
    forward, (numbers, after, expected) = waiting(_drawn)
    gallery("training-forward", [
        (picture, f"t = {timestep}", f"A painted picture at timestep {timestep}")
        for picture, timestep in zip(forward, strips.TIMESTEPS, strict=True)], COLUMNS)
    st.caption("Forward: a picture by the schedule of postcards-ddpm, 32 x 32, in pixel space "
               "(DDPMScheduler.add_noise).")
    for name, pictures, caption in (
            ("x_t", after, f"Reverse: postcards-ddpm makes a picture of noise, seed 0, in "
             f"{strips.STEPS} steps (DDPMScheduler.step)."),
            ("x0", expected, "What it expected the end to be at those steps "
             "(previews.predicted_x0).")):
        gallery(f"training-{name}", [
            (picture, f"step {number}", f"{name} at step {number} of {strips.STEPS}")
            for picture, number in zip(pictures, numbers, strict=True)], COLUMNS)
        st.caption(caption)


def comparison() -> Comparison:
    base = RunRequest(task="unconditional", model_id=strips.MODEL, prompt="")
    return Comparison.parse(base, ["scheduler=ddpm,ddim", "num_inference_steps=5,10,20,50"])


LESSON = Lesson("training", "Train your own", lambda: training.QUESTION, pose, play, training.check,
                comparison, in_study=False)  # a study has prompts

"""The lesson Distillation: a student that arrives in few evaluations."""

from __future__ import annotations

import streamlit as st

from dashboard import state
from dashboard.learn import charts
from dashboard.learn.frame import PAGE, Lesson
from dashboard.learn.model import waiting
from dashboard.learn.pictures import gallery
from pipelines.comparison import Comparison
from pipelines.lessons import distillation, plane, postcards
from pipelines.lessons.question import Question
from pipelines.request import RunRequest

START = 1  # evaluations
TEACHER, STUDENT = f"teacher, {postcards.MODEL}", f"student, {distillation.STUDENT}"


@st.cache_resource(show_spinner=False, max_entries=100)
def _painted(who, prompts, seeds, evaluations):
    return distillation.paint(state.engine().registry, who, prompts, seeds, evaluations)


def paint(who, prompts, seeds, evaluations):
    return waiting(_painted, who, prompts, seeds, evaluations)


def pose() -> None:
    three, made = plane.Mixture.three(), distillation.points("teacher", 20)
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).lines(
        "paths of 24 points, 20 steps", made.ways(24)).points(
        "200 ends", made.path.end).show(
        "distillation.pose", "The teacher's way in the plane: DDIMScheduler.step, 20 evaluations "
        "of a perfect network (Mixture.epsilon). A student learns to say, from any place on such "
        "a path, where it ends.")
    for evaluations in distillation.EVALUATIONS:  # while one reads, so that the slider is quick
        distillation.points("student", evaluations)


def play() -> None:
    PAGE.start(**{"distillation.evaluations": START})
    evaluations = st.select_slider("evaluations of the network", distillation.EVALUATIONS,
                                   **PAGE.kept("distillation.evaluations"))
    left, right = st.columns(2, gap="medium")
    with left:
        _plane(evaluations)
    with right:
        _postcards(evaluations)


def _plane(evaluations: int) -> None:
    three = plane.Mixture.three()
    teacher, student = (distillation.points(who, evaluations) for who in ("teacher", "student"))
    exact = three.log_density(student.exact, 1.0, 0.0).mean().item()
    inside = three.log_density(student.path.end, 1.0, 0.0).mean().item()
    charts.Plane().lines("density, exact", plane.contours(three), exact=True).points(
        "exact end of each point", student.exact, exact=True, size=30).points(
        f"teacher, {distillation.times(evaluations)}", teacher.path.end).points(
        f"student, {distillation.times(evaluations)}", student.path.end).show(
        "distillation.plane", "LCMScheduler.step with a perfect student (PerfectStudent.prediction "
        f"is driving.exact_end): its points end {student.error:.2f} (root mean square) from the "
        f"exact ends, the teacher's by DDIMScheduler.step {teacher.error:.2f}. The student's lie "
        f"in the density all the same: mean log density {inside:.2f}, of the exact ends "
        f"{exact:.2f}.")
    st.latex(r"\hat x_0 = f(x_t, t) = \text{end of the path through } x_t")
    if evaluations > 1:
        signal, noise = student.scales[1]
        st.latex(rf"x_{{t_2}} = {signal:.3f}\,\hat x_0 + {noise:.3f}\,z,\quad "
                 r"z \sim \mathcal{N}(0, 1)\text{, fresh}")


def _postcards(evaluations: int) -> None:
    asked = (postcards.PROMPT,), (0,)
    made = [(paint("teacher", *asked, distillation.TEACHER_STEPS)[0],
             f"teacher, {distillation.TEACHER_STEPS} evaluations")]
    for who in ("teacher", "student"):
        apart = distillation.distances(paint, who, evaluations, *asked)[0]
        made.append((paint(who, *asked, evaluations)[0],
                     f"{who}, {distillation.times(evaluations)}; {apart:.1f} of 255 from the "
                     "first"))
    gallery("distillation", [(picture, caption, f"{postcards.PROMPT}, by the {caption}")
                             for picture, caption in made])
    st.caption(f"“{postcards.PROMPT}”, seed 0 (postcards.denoise). An evaluation of the teacher, "
               f"DDIM at guidance_scale {distillation.GUIDANCE:g}, is two rows of the UNet, with "
               "and without the prompt; one of the student, LCM without guidance, a single row.")
    rows = [{"evaluations": n, "difference": distillation.mean_distance(paint, who, n), "who": name}
            for who, name in (("teacher", TEACHER), ("student", STUDENT))
            for n in distillation.EVALUATIONS]
    charts.lines(rows, "evaluations", "difference", "who", "distillation.distances",
                 f"Distance to the teacher's picture of {distillation.TEACHER_STEPS} steps, mean "
                 f"of {len(distillation.PROMPTS)} prompts (distillation.mean_distance); the dashed "
                 "line is the slider's number.", marked=evaluations)


def question() -> Question:
    return distillation.question(paint)


def check(case: int) -> Question:
    return distillation.check(paint, case)


def comparison() -> Comparison:
    evaluations = PAGE.get("distillation.evaluations", START)
    teacher, student = (f"{model}+{distillation.SOLVERS[who]}+{guidance:g}" for model, who, guidance
                        in ((postcards.MODEL, "teacher", distillation.GUIDANCE),
                            (distillation.STUDENT, "student", 1.0)))
    rows = dict.fromkeys([f"{teacher}+{distillation.TEACHER_STEPS}", f"{teacher}+{evaluations}",
                          f"{student}+{evaluations}", *(f"{student}+{n}" for n in
                                                        distillation.EVALUATIONS)])
    return Comparison.parse(RunRequest(prompt=postcards.PROMPT), [
        f"model_id+scheduler+guidance_scale+num_inference_steps={', '.join(rows)}", "seed=0..3"])


LESSON = Lesson("distillation", "Distillation", question, pose, play, check, comparison)

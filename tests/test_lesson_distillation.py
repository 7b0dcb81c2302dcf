"""The lesson Distillation: a perfect student ends where its teacher's paths end."""

import functools

import pytest
import torch

from pipelines.lessons import distillation, plane, postcards


@pytest.fixture(scope="module")
def paint(session_engine):
    return functools.cache(functools.partial(distillation.paint, session_engine.registry))


def test_a_perfect_student_arrives_in_one_evaluation():
    student, teacher = (distillation.points(who, 1) for who in ("student", "teacher"))
    assert student.path.evaluations == teacher.path.evaluations == 1
    assert student.error < 1e-3 < 1 < teacher.error
    assert torch.equal(student.exact, teacher.exact)


def test_more_evaluations_of_the_student_lead_to_other_points_of_the_same_density():
    made, three = distillation.points("student", 4), plane.Mixture.three()
    assert made.path.evaluations == 4 and made.error > 1
    inside, exact = (three.log_density(points, 1.0, 0.0).mean().item()
                     for points in (made.path.end, made.exact))
    assert inside == pytest.approx(exact, abs=0.15)
    with pytest.raises(ValueError, match="'sample', accepted epsilon"):
        distillation.perfect_student().prediction("sample", made.path.end, 1.0, 1.0)


def test_the_student_is_nearest_to_its_teacher_after_one_evaluation(paint):
    asked = distillation.PROMPTS[:2], range(2)
    one, four = (sum(distillation.distances(paint, "student", n, *asked)) for n in (1, 4))
    assert one < four
    assert one < sum(distillation.distances(paint, "teacher", 1, *asked))
    steps = distillation.TEACHER_STEPS
    assert distillation.distances(paint, "teacher", steps, *asked) == [0, 0]


def test_the_student_makes_the_picture_that_a_run_makes(engine, paint):
    from pipelines import RunRequest

    run = engine.run(RunRequest(prompt=postcards.PROMPT, model_id=distillation.STUDENT,
                                scheduler="lcm", seed=3, num_inference_steps=2, guidance_scale=1))
    made = paint("student", (postcards.PROMPT,), (3,), 2)[0]
    assert postcards.difference(made, engine.pictures.get(run.image_sha256)) < 1

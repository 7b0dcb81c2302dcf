"""What the lessons show, against closed forms and against the engine."""

import math

import numpy as np
import pytest
import torch
from apptest import APP, html, page
from PIL import Image

from dashboard import state
from dashboard.learn.page import LESSONS
from dashboard.study.setup import put_methods
from pipelines import RunRequest
from pipelines.errors import RequestError
from pipelines.laboratory.mixture import Mixture, solve
from pipelines.lessons import flow, forward, guidance, plane, postcards, reverse, solvers
from pipelines.lessons.question import interval, nearest
from pipelines.study.design import Study
from pipelines.study.prompts import bundled_prompts


def closed_form(schedule, timestep):
    """signal ** 2 of a schedule, by the formula of its paper."""
    if schedule == "squaredcos_cap_v2":
        def bar(share):
            return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2
        return bar((timestep + 1) / 1000) / bar(0)
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, 1000)
    else:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.prod(1 - betas[: timestep + 1])


@pytest.mark.parametrize("schedule", forward.SCHEDULES)
@pytest.mark.parametrize("timestep", [1, 250, 600, 900])
def test_signal_noise_and_their_ratio_are_the_papers(schedule, timestep):
    signal, noise = forward.signal_and_noise(schedule, timestep)
    if schedule == "flow":
        assert (signal, noise) == pytest.approx((1 - timestep / 1000, timestep / 1000))
    else:
        assert signal**2 == pytest.approx(closed_form(schedule, timestep), rel=1e-4)
        assert signal**2 + noise**2 == pytest.approx(1)
    assert forward.snr(schedule, timestep) == pytest.approx((signal / noise) ** 2)


@pytest.mark.parametrize("schedule", forward.SCHEDULES)
def test_noised_points_have_the_exact_marginal(schedule):
    three, count = Mixture.three(), 20_000
    clean, noise = plane.clean_points(three, count), plane.noise_points(count, 1)
    signal, part = forward.signal_and_noise(schedule, 400)
    x = forward.noised(schedule, clean, noise, 400)
    torch.testing.assert_close(x, signal * clean + part * noise, atol=1e-5, rtol=1e-5)
    mean = (three.weights[:, None] * three.means).sum(0)
    torch.testing.assert_close(x.mean(0), signal * mean, atol=0.03, rtol=0)
    second = (three.weights[:, None] * (three.means**2 + three.deviations[:, None] ** 2)).sum(0)
    torch.testing.assert_close(x.square().mean(0), signal**2 * second + part**2, atol=0.05, rtol=0)


def test_contours_lie_where_the_density_has_their_level():
    three = Mixture.three()
    lines = plane.contours(three, 0.8, 0.6)
    axis = torch.linspace(-plane.SPAN, plane.SPAN, plane.GRID, dtype=torch.float64)
    highest = three.log_density(torch.cartesian_prod(axis, axis), 0.8, 0.6).max()
    for line in lines:
        shares = (three.log_density(line, 0.8, 0.6) - highest).exp()
        level = plane.LEVELS[nearest(shares.mean().item(), plane.LEVELS)]
        assert shares.min() > 0.8 * level and shares.max() < 1.2 * level
    assert len(lines) >= 3


def test_the_exact_ends_of_one_gaussian_are_its_closed_form():
    one = guidance.gaussian(0.4, 0.3)
    made = plane.run("heun", 5, one, 50)
    sigma, start = made.path.sigmas[0], made.path.start
    ends = one.means + 0.3 / math.sqrt(0.09 + sigma**2) * (start - one.means)
    assert (made.exact - ends).abs().max() < 1e-4
    assert made.error == pytest.approx(plane.distance(made.path.end, ends), abs=1e-4)
    assert len(made.seen) == made.path.evaluations == 9
    assert torch.equal(made.ways(3)[2][-1], made.path.end[2])


def test_only_the_deterministic_solver_comes_to_one_picture():
    assert solvers.QUESTION.grade().right == 1
    assert solvers.moved("ddim", 40) < 0.1 < 1 < solvers.moved("euler_a", 40)
    found = {steps: error for steps, _, error in solvers.errors("dpmpp_2m_karras")}
    assert found[80] < found[20] < found[5]
    assert solvers.order("dpmpp_2m_karras")[0] == pytest.approx(2, abs=0.5)
    assert solvers.order("euler_a") is None
    assert [row[0] for row in solvers.errors("lcm")] == [n for n in solvers.STEPS if n <= 50]
    with pytest.raises(RequestError, match="LCM with num_inference_steps=80"):
        plane.run("lcm", 80)


@pytest.mark.parametrize("scale", [1.0, 3.0, 5.0])
def test_guided_gaussians_are_their_closed_form(scale):
    guided = guidance.two_gaussians(scale)
    made = plane.run(guidance.SOLVER, guidance.STEPS, guided, guidance.POINTS)
    sigma = made.path.sigmas[0]
    mean, deviation = guidance.guided_gaussian(guided, sigma)
    start = torch.tensor([[0.0, 0.0], [sigma, 0.0]], dtype=torch.float64)
    ends = solve(lambda x, at: guided.epsilon(x, 1.0, at), start, sigma)
    assert ends[0, 0].item() == pytest.approx(mean, abs=1e-6)
    assert (ends[1] - ends[0])[0].item() == pytest.approx(deviation, abs=1e-6)
    narrow, wide = guidance.NARROW, guidance.WIDE
    assert deviation == pytest.approx(narrow**scale * wide ** (1 - scale), rel=0.02)
    assert guidance.spread(made.path.end) == pytest.approx(deviation, rel=0.05)
    if scale == 1:
        assert guidance.sharpened_gaussian(guided) == pytest.approx((guidance.MEAN, narrow))


def test_the_sharpened_gaussian_is_the_product_of_the_densities():
    guided = guidance.two_gaussians(3.0)
    mean, deviation = guidance.sharpened_gaussian(guided)
    x = torch.stack([torch.linspace(-6, 6, 4001, dtype=torch.float64),
                     torch.zeros(4001, dtype=torch.float64)], 1)
    log = (3 * guided.conditional.log_density(x, 1.0, 0.0)
           - 2 * guided.unconditional.log_density(x, 1.0, 0.0))
    weights = log.softmax(0)
    found = (weights * x[:, 0]).sum()
    assert found.item() == pytest.approx(mean, abs=1e-4)
    assert (weights * (x[:, 0] - found) ** 2).sum().sqrt().item() == pytest.approx(deviation, 1e-3)


def test_the_parts_of_the_difference_are_parallel_and_orthogonal():
    difference, along = plane.noise_points(20, 2), plane.noise_points(20, 3)
    parallel, orthogonal = guidance.split(difference, along)
    torch.testing.assert_close(parallel + orthogonal, difference)
    assert (orthogonal * along).sum(1).abs().max() < 1e-10
    assert (parallel[:, 0] * along[:, 1] - parallel[:, 1] * along[:, 0]).abs().max() < 1e-10
    vectors = guidance.vectors(guidance.two_gaussians(3.0))
    torch.testing.assert_close(vectors["guided"], vectors["unconditional"] + 3 * (
        vectors["parallel part"] + vectors["orthogonal part"]))


def test_one_euler_step_of_a_flow_puts_all_points_at_the_mean():
    three = Mixture.three()
    end = plane.run("flow_euler", 1).path.end
    mean = (three.weights[:, None] * three.means).sum(0)
    torch.testing.assert_close(end, mean.expand_as(end), atol=1e-6, rtol=0)
    assert flow.QUESTION.grade().right == 2
    made = plane.run("flow_euler", flow.MANY)
    assert flow.bend(torch.cat([made.seen, made.path.end[None]])) > 0.1
    line = torch.linspace(0, 1, 5, dtype=torch.float64)[:, None, None] * plane.noise_points(7)
    assert flow.bend(line) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_flow_and_diffusion_have_equal_marginals(share):
    three = Mixture.three()
    signal, noise = flow.kept_variance(share)
    assert signal**2 + noise**2 == pytest.approx(1)
    x, scale = plane.noise_points(50), signal + noise
    torch.testing.assert_close(three.log_density(x, 1 - share, share),
                               three.log_density(x * scale, signal, noise) + 2 * math.log(scale))


@pytest.fixture(scope="module")
def traced(session_engine):
    return reverse.trace(session_engine.registry, postcards.PROMPT, 0)


@pytest.mark.parametrize("scheduler", ["ddim", "euler_a"])
def test_a_lesson_makes_the_picture_that_a_run_makes(engine, scheduler):
    run = engine.run(RunRequest(prompt=postcards.PROMPT, scheduler=scheduler, seed=3,
                                num_inference_steps=4, guidance_scale=3))
    with engine.registry.borrow(postcards.MODEL) as (model, _):
        made = postcards.denoise(model, [postcards.PROMPT], postcards.noise([3]), scheduler, 4, 3.0,
                                 seed=3)
    picture = postcards.pictures(engine.registry, made.latents)[0]
    assert postcards.difference(picture, engine.pictures.get(run.image_sha256)) < 1


def test_one_network_gives_one_picture_in_both_views(session_engine):
    with session_engine.registry.borrow(postcards.MODEL) as (model, _):
        apart = []
        for steps in (4, 16):
            as_flow = flow.denoise_as_flow(model, postcards.PROMPT, postcards.noise([0]), steps,
                                           3.0)
            euler = postcards.denoise(model, [postcards.PROMPT], postcards.noise([0]), "euler",
                                      steps, 3.0).latents
            apart.append((as_flow - euler).square().mean().sqrt().item())
    assert apart[1] < 0.7 * apart[0] and apart[1] < 0.1


def test_layout_and_detail_make_up_the_latents(traced):
    x = traced.x0[:, 0]
    blocks = torch.nn.functional.interpolate(reverse.layout(x), scale_factor=4)
    torch.testing.assert_close(blocks + reverse.detail(x), x)
    assert reverse.layout(reverse.detail(x)).abs().max() < 1e-5
    shares = reverse.shares(traced)
    for values in shares.values():
        assert values[0] < 0.5 and values[-1] > 0.99
        assert reverse.first_settled(values) <= reverse.STEPS
    assert reverse.settled(x[-1:], x[-1]) == [1.0]
    assert [channel.size for channel in reverse.channels(x[0])] == [(64, 64)] * 4


@pytest.mark.parametrize("key", LESSONS)
def test_check_questions_differ_and_are_graded_by_computing(home, key):
    questions = [LESSONS[key].check(case) for case in range(4)]
    assert len({(question.text, question.choices) for question in questions}) > 1
    for question in questions[:2]:
        answer = question.grade()
        assert 0 <= answer.right < len(question.choices) and answer.why


def test_intervals_and_nearest():
    assert [interval(value, (1, 3)) for value in (0.5, 1, 2, 3)] == [0, 1, 1, 2]
    assert nearest(0.4, (0.0, 0.5, 1.0)) == 1


@pytest.mark.parametrize("key", LESSONS)
def test_a_lesson_is_drawn_and_opens_in_compare(home, key):
    app = page("learn", {"learn.lesson": key})
    assert not app.exception and "cs-error" not in html(app).split("</style>")[-1]
    app.radio(key=f"learn.{key}.guess").set_value(0).run()
    app.button(key=f"learn.{key}.guess.commit").click().run()
    assert not app.exception and "not foreseen" not in html(app)
    assert "Guess again" in {button.label for button in app.button}
    app.button(key="learn.compare").click().run()
    assert app.title[0].value == "Compare"
    cells = next(caption.value for caption in app.caption if "cells" in caption.value)
    assert "cells" in cells and not app.exception


def test_lessons_open_in_study_with_methods_that_it_takes(home):
    for lesson in LESSONS.values():
        if lesson.in_study:
            put_methods(lesson.comparison())
            axes = [axis for axis in lesson.comparison().axes
                    if axis.name in state.STUDY.get("axes")]
            study = Study(lesson.comparison().base, tuple(axes), bundled_prompts(2, "postcards"),
                          (0,))
            assert len(study.methods) > 1
    app = page("learn", {"learn.lesson": "guidance", "learn.guidance.guess.committed": 0})
    app.button(key="learn.study").click().run()
    assert app.title[0].value == "Study" and not app.exception
    assert app.session_state["study.axes"] == ["guidance_scale"]
    assert "cs-error" not in html(app).split("</style>")[-1]


def test_the_state_of_a_lesson_goes_along_to_compare(home):
    for key, values, axis, value in (
            ("forward", {"timestep": 710}, "strength", 0.71),
            ("solvers", {"scheduler": "heun", "steps": 12}, "num_inference_steps", 12),
            ("flow", {"steps": 3}, "num_inference_steps", 3),
            ("words", {"prompt": "a blue cat"}, None, "a blue cat")):
        for name, chosen in values.items():
            state.LEARN.set(f"{key}.{name}", chosen)
        made = LESSONS[key].comparison()
        axes = {axis.name: axis.values for axis in made.axes}
        assert value in axes[axis] if axis else made.base.prompt == value
        if key == "solvers":
            assert "heun" in axes["scheduler"]


def test_an_address_opens_its_lesson(home):
    app = page("learn", lesson="guidance")
    assert app.session_state["learn.lesson"] == "guidance"


def test_the_picture_of_the_first_page_is_what_the_model_makes(session_engine):
    folder = APP.parent / "first"
    with session_engine.registry.borrow(postcards.MODEL) as (model, _):
        made = postcards.denoise(model, [postcards.PROMPT], postcards.noise([0]), "ddim", 8, 5.0)
    for name, latents in (("picture", made.latents), ("steps", made.x0[:, 0])):
        strip = Image.open(folder / f"{name}.png")
        for number, picture in enumerate(postcards.pictures(session_engine.registry, latents)):
            shown = strip.crop((64 * number, 0, 64 * (number + 1), 64))
            assert postcards.difference(picture, shown) < 2

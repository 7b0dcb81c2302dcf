"""A lesson as one HTML page that needs no other file, no network and no program behind it.

All that its slider shows was computed before and lies in the page; the answers do, too.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import PipelineError, RequestError
from pipelines.lessons import flow, forward, guidance, plane, postcards, reverse, solvers
from pipelines.lessons.drawing import PlaneDrawing, line_chart
from pipelines.lessons.question import Question

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

MAX_BYTES = 3_000_000
TEMPLATE = Path(__file__).with_name("page.html")
POINTS, PATHS = 250, 24
THREE = plane.Mixture.three()
FLOW_STEPS = tuple(steps for steps in flow.STEPS if steps <= 20)
SOLVER_STEPS = tuple(steps for steps in solvers.STEPS if steps <= 40)
TIMESTEPS = (1, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 999)
GUIDANCE_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Frame:
    """What the slider shows at one place: its value, figures as HTML, pictures with captions."""

    value: str
    figures: tuple[str, ...]
    pictures: tuple[tuple[Image, str], ...] = ()


@dataclass(frozen=True)
class Contents:
    """A lesson's title, questions, figure before the guess, and the frames of its slider."""

    title: str
    question: Question
    check: Question
    pose: str
    slider: str
    frames: tuple[Frame, ...]


def _drawn(span: float = plane.SPAN, signal: float = 1.0, noise: float = 0.0,
           name: str = "the data's density, exact") -> PlaneDrawing:
    return PlaneDrawing(span).lines(name, plane.contours(THREE, signal, noise), exact=True)


def _pose(caption: str) -> str:
    return _drawn().points("noise", plane.noise_points()[:POINTS]).svg(caption)


def _forward(registry: Registry, note: Callable[[], None]) -> Contents:
    import torch

    clean = postcards.painted()[0]
    with registry.borrow(postcards.MODEL) as (model, _):
        latents = postcards.encode(model, [clean])
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    frames = []
    for timestep in TIMESTEPS:
        signal, part = forward.signal_and_noise("scaled_linear", timestep)
        points = forward.noised("scaled_linear", plane.clean_points(THREE)[:POINTS],
                                plane.noise_points()[:POINTS], timestep)
        seen = forward.noised("scaled_linear", postcards.pixels([clean]), noise, timestep)
        kept = forward.noised("scaled_linear", latents, postcards.noise([0]), timestep)
        chart = _drawn(signal=signal, noise=part, name="density of x_t, exact").points(
            "x_t", points).svg(f"x_t = {signal:.3f} x0 + {part:.3f} noise; SNR "
                               f"{signal**2 / part**2:.3g} (DDPMScheduler.add_noise)")
        ratios = line_chart(
            {forward.SCHEDULES[name]: [(t, forward.snr(name, t)) for t in range(10, 991, 35)]
             for name in forward.SCHEDULES}, "timestep", "SNR", "The signal-to-noise ratio of each "
            "schedule, both axes logarithmic (forward.snr)", log=True, marked=max(10, timestep))
        frames.append(Frame(str(timestep), (chart, ratios), (
            (clean, "x0"), (postcards.as_pictures(seen)[0], "x_t of its pixels"),
            (postcards.pictures(registry, kept)[0], "x_t of its latents, decoded"))))
        note()
    pose = PlaneDrawing().lines("density, exact", plane.contours(THREE), exact=True).points(
        "data", plane.clean_points(THREE)[:POINTS]).svg(
        "Points of a mixture of three Gaussians; noise is added to them")
    return Contents("Forward", forward.QUESTION, forward.check(0), pose, "timestep", tuple(frames))


def _reverse(registry: Registry, note: Callable[[], None]) -> Contents:
    way, made = reverse.trace(registry, postcards.PROMPT, 0), plane.run(reverse.SOLVER,
                                                                        reverse.STEPS)
    shares = reverse.shares(way)
    frames = []
    for step in range(1, reverse.STEPS + 1):
        seen, (signal, noise) = made.seen[step - 1], made.scales[step - 1]
        chart = _drawn(3.2, signal, noise, "density of x_t, exact").points(
            "x_t", seen[:POINTS]).points("predicted x0", THREE.x0(
                seen[:POINTS], signal, noise)).svg(
            f"Step {step} of {reverse.STEPS} of DDIMScheduler: x_t, and the mean of all clean "
            "points that each may come from (Mixture.x0)")
        settled = line_chart(
            {part: [(n, max(share, -0.2)) for n, share in enumerate(values, 1)]
             for part, values in shares.items()}, "step", "share",
            "The share of the final layout and detail that the predicted x0 holds "
            "(reverse.shares)", marked=step)
        pictures = postcards.pictures(registry, way.pictured(step))
        frames.append(Frame(str(step), (chart, settled), tuple(zip(
            pictures, (f"x_t at step {step}", "predicted x0", "the end"), strict=True))))
        note()
    return Contents("Reverse", reverse.question(registry), reverse.check(registry, 0),
                    _pose("Noise, before the first step: what will the first guesses of the end "
                          "look like?"), "step", tuple(frames))


def _solvers(registry: Registry, note: Callable[[], None]) -> Contents:
    errors = {solvers.NAMES[key]: [(evaluations, error)
                                   for _, evaluations, error in solvers.errors(key)]
              for key in ("ddim", "dpmpp_2m_karras", "euler_a")}
    frames = []
    for steps in SOLVER_STEPS:
        figures, pictures = [], []
        for key in ("ddim", "euler_a"):
            run = plane.run(key, steps)
            figures.append(_drawn().points("exact ends", run.exact[:POINTS], exact=True).points(
                f"{solvers.NAMES[key]}, {steps} steps", run.path.end[:POINTS]).svg(
                f"{solvers.NAMES[key]}: {run.path.evaluations} evaluations, {run.error:.3f} (root "
                "mean square) from the exact ends (driving.exact_end)"))
            with registry.borrow(postcards.MODEL) as (model, _):
                way = postcards.denoise(model, [postcards.PROMPT], postcards.noise([0]), key,
                                        steps, 3.0)
            pictures.append((postcards.pictures(registry, way.latents)[0],
                             f"{solvers.NAMES[key]}, {steps} steps"))
        figures.append(line_chart(errors, "evaluations", "error", "Distance to the exact ends, "
                                  "both axes logarithmic (plane.Run.error)", log=True,
                                  marked=steps))
        frames.append(Frame(str(steps), tuple(figures), tuple(pictures)))
        note()
    return Contents("Solvers", solvers.QUESTION, solvers.check(0),
                    _pose("Points of noise, and the density that they shall be brought to"),
                    "num_inference_steps", tuple(frames))


def _guidance(registry: Registry, note: Callable[[], None]) -> Contents:
    frames = []
    for scale in guidance.SCALES:
        guided = guidance.two_gaussians(scale)
        points = guidance.guided_points(guided)
        chart = PlaneDrawing().lines("p(x|c), exact", plane.contours(guided.conditional),
                                     exact=True).points(
            f"guided points, w = {scale:g}", points[:POINTS]).svg(
            f"Standard deviation {guidance.spread(points):.3f}; of p(x|c) itself "
            f"{guidance.NARROW}, of the sharpened density "
            f"{guidance.sharpened_gaussian(guided)[1]:.3f} (Guided.prediction)")
        with registry.borrow(postcards.MODEL) as (model, _):
            way = postcards.denoise(model, [postcards.PROMPT] * len(GUIDANCE_SEEDS),
                                    postcards.noise(GUIDANCE_SEEDS), "ddim", 10, scale)
        parts = line_chart(
            {part: list(enumerate(norms, 1)) for part, norms in guidance.geometry(way).items()},
            "step", "norm", "What guidance adds to the conditional prediction on postcards "
            "(guidance.geometry)")
        frames.append(Frame(f"{scale:g}", (chart, parts), tuple(
            (picture, f"seed {seed}") for seed, picture in zip(
                GUIDANCE_SEEDS, postcards.pictures(registry, way.latents), strict=True))))
        note()
    world = guidance.two_gaussians(1.0)
    pose = PlaneDrawing().lines("p(x), exact", plane.contours(world.unconditional),
                                exact=True).lines(
        "p(x|c), exact", plane.contours(world.conditional)).svg(
        "Two Gaussians: without a condition, and with one")
    return Contents("Guidance", guidance.QUESTION, guidance.check(0), pose, "guidance_scale",
                    tuple(frames))


def _flow(registry: Registry, note: Callable[[], None]) -> Contents:
    exact, frames = plane.run("flow_euler", flow.MANY), []
    ways = [way[::8] for way in exact.ways(PATHS)]
    for steps in FLOW_STEPS:
        made = plane.run("flow_euler", steps)
        chart = _drawn().lines("exact paths", ways).lines(
            f"the same in {steps} Euler steps", made.ways(PATHS)).points(
            "ends", made.path.end[:POINTS]).svg(
            f"In {steps} steps of FlowMatchEulerDiscreteScheduler the points end {made.error:.3f} "
            "(root mean square) from the exact ones")
        with registry.borrow(postcards.MODEL) as (model, _):
            as_flow = flow.denoise_as_flow(model, postcards.PROMPT, postcards.noise([0]), steps,
                                           3.0)
            euler = postcards.denoise(model, [postcards.PROMPT], postcards.noise([0]), "euler",
                                      steps, 3.0).latents
        pictures = [postcards.pictures(registry, latents)[0] for latents in (as_flow, euler)]
        frames.append(Frame(str(steps), (chart,), (
            (pictures[0], f"as flow matching, {steps} steps"),
            (pictures[1], f"as diffusion, {steps} steps"))))
        note()
    pairs = plane.lines_between(plane.noise_points(60), plane.clean_points(THREE, 60))
    pose = _drawn().lines("lines from noise to data", pairs).svg(
        "What flow matching is trained on: straight lines from a noise to a point of the data")
    return Contents("Flow matching", flow.QUESTION, flow.check(0), pose, "Euler steps",
                    tuple(frames))


PAGES: dict[str, Callable[[Registry, Callable[[], None]], Contents]] = {
    "forward": _forward, "reverse": _reverse, "solvers": _solvers, "guidance": _guidance,
    "flow": _flow}
FRAMES = {"forward": len(TIMESTEPS), "reverse": reverse.STEPS, "solvers": len(SOLVER_STEPS),
          "guidance": len(guidance.SCALES), "flow": len(FLOW_STEPS)}  # to compute


def lesson_page(registry: Registry, name: str, note: Callable[[], None] | None = None) -> str:
    """The HTML of a lesson, at most MAX_BYTES; `note()` is called after each of FRAMES[name].
    Raises RequestError for a lesson that has no page, PipelineError for one that is too large."""
    if name not in PAGES:
        raise RequestError(f"lesson: received {name!r}, accepted {', '.join(PAGES)}")
    contents = PAGES[name](registry, note or (lambda: None))
    questions = [_asked(contents.question), _asked(contents.check)]
    text = TEMPLATE.read_text("utf-8")
    for mark, value in (
        ("title", escape(contents.title)), ("slider", escape(contents.slider)),
        ("pose", contents.pose), ("last", str(len(contents.frames) - 1)),
        ("frames", "".join(map(_frame, contents.frames))),
        ("data", json.dumps({"questions": questions,
                             "values": [frame.value for frame in contents.frames]}).replace(
                                 "<", "\\u003c"))):
        text = text.replace(f"@{mark}@", value)
    if (size := len(text.encode())) > MAX_BYTES:
        raise PipelineError(f"lesson {name}: its page has {size / 1e6:.1f} MB, accepted up to "
                            f"{MAX_BYTES / 1e6:g} MB")
    return text


def _asked(question: Question) -> dict[str, object]:
    answer = question.grade()
    return {"text": question.text, "choices": list(question.choices), "right": answer.right,
            "why": answer.why}


def _frame(frame: Frame) -> str:
    pictures = "".join(
        f"<figure><img alt='{escape(caption, quote=True)}' src='{_data_uri(picture)}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for picture, caption in frame.pictures)
    return (f"<section class='frame' hidden><div class='pictures'>{pictures}</div>"
            f"<div class='figures'>{''.join(frame.figures)}</div></section>")


def _data_uri(picture: Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


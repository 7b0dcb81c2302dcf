"""Latents: what the autoencoder keeps, what lies between two noises, and stored pictures."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.laboratory.driving import exact_end
from pipelines.lessons import plane, postcards, reverse
from pipelines.lessons.question import Answer, Question, interval, nearest
from pipelines.postcards.behaviour import as_array
from pipelines.postcards.figures import nearest as nearest_pictures
from pipelines.postcards.pictures import numbered_scene, paint_numbered
from pipelines.postcards.vocabulary import Scene, is_held_out, plain_caption

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.models.registry import Registry

SOLVER, STEPS, GUIDANCE = "ddim", 10, 3.0
MIXED_STEPS = 5  # so that the slider is quick
SEEDS = (0, 1)  # of the two noises
NUMBERS = math.prod(postcards.LATENTS)
TRAINING_PICTURES = 48_000
SCENE = Scene("car", "red", "road", "night")
PICTURES = 4  # of each kind, whose nearest training pictures are looked for
POINTS = torch.tensor([[-1.5, 0.7], [1.3, -0.2]], dtype=torch.float64)  # two noises of the plane
SHARES = tuple(i / 20 for i in range(21))


def linear(first: Tensor, second: Tensor, share: float) -> Tensor:
    return (1 - share) * first + share * second


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """On the great circle between two tensors of any equal shape (Shoemake 1985): of equal norms
    the norm is kept."""
    angle = angle_between(first, second)
    return (math.sin((1 - share) * angle) * first + math.sin(share * angle) * second) / math.sin(
        angle)


def angle_between(first: Tensor, second: Tensor) -> float:
    """In radians."""
    cosine = (first * second).sum() / (first.norm() * second.norm())
    return math.acos(cosine.clamp(-1, 1).item())


MIXED = {"linear": linear, "slerp": slerp}


def norms(first: Tensor, second: Tensor) -> list[dict[str, float | str]]:
    """The norm of each way to mix at each of SHARES."""
    return [{"share": share, "norm": mix(first, second, share).norm().item(), "mixed": name}
            for name, mix in MIXED.items() for share in SHARES]


@functools.cache
def plane_ways() -> dict[str, tuple[Tensor, Tensor]]:
    """For each way to mix the noises of the plane, (21, 2), and where the probability-flow equation
    takes them."""
    ways = {}
    for name, mix in MIXED.items():
        noises = torch.stack([mix(*POINTS, share) for share in SHARES])
        ways[name] = noises, exact_end(plane.Mixture.three(), noises, None)
    return ways


def paint_mixed(registry: Registry, prompt: str, share: float) -> Tensor:
    """Latents of the pictures of two mixed noises, linear and slerp, (2, 4, 16, 16)."""
    first, second = postcards.noise(SEEDS[:1]), postcards.noise(SEEDS[1:])
    start = torch.cat([mix(first, second, share) for mix in MIXED.values()])
    with registry.borrow(postcards.MODEL) as (model, _):
        return postcards.denoise(model, [prompt] * len(start), start, SOLVER, MIXED_STEPS,
                                 GUIDANCE).latents


def fineness(latents: Tensor) -> float:
    """The mean square of the detail, which the means of 4 x 4 blocks leave, of (N, 4, 16, 16)."""
    return reverse.detail(latents).square().mean().item()


# The autoencoder


def through_autoencoder(registry: Registry, images: Sequence[Image]) -> list[Image]:
    """Pictures of 64 x 64 pixels, encoded and decoded."""
    with registry.borrow(postcards.MODEL) as (model, _):
        return postcards.pictures(registry, postcards.encode(model, images))


def psnr(difference: float) -> float:
    """In dB, of a root mean square difference of 0 to 255; infinite of equal pictures."""
    return 20 * math.log10(255 / difference) if difference else math.inf


# Stored pictures


@functools.cache
def training_scenes() -> tuple[Scene, ...]:
    """What each of the training pictures shows, in the order of their numbers."""
    return tuple(numbered_scene(index)[0] for index in range(TRAINING_PICTURES))


@dataclass(frozen=True, eq=False)
class Nearest:
    """Pictures of one kind and, for each, the training picture that is nearest to it, with the
    root mean square difference (0 to 255)."""

    pictures: list[Image]
    twins: list[Image]
    distances: list[float]

    @property
    def mean(self) -> float:
        return sum(self.distances) / len(self.distances)


@dataclass(frozen=True, eq=False)
class Memory:
    """What was looked for, and among how many training pictures: those that show the same subject
    in the same place at the same time, in any colour."""

    generated: Nearest
    fresh: Nearest
    copies: Nearest
    among: int


Remember = Callable[[Scene, int], Memory]  # `memory` of a registry


def memory(registry: Registry, scene: Scene, seed: int = 0) -> Memory:
    """Generated pictures of a scene, pictures of it that are painted now, and training pictures
    that went through the autoencoder, beside the nearest training pictures, painted again from
    their numbers."""
    from PIL import Image

    same = scene.subject, scene.place, scene.time
    alike = [index for index, other in enumerate(training_scenes())
             if (other.subject, other.place, other.time) == same]
    training = as_array([Image.fromarray(paint_numbered(index)[1][..., :3]) for index in alike])
    prompt = plain_caption(scene, random.Random(0))
    seeds = range(seed, seed + PICTURES)
    with registry.borrow(postcards.MODEL) as (model, _):
        made = postcards.denoise(model, [prompt] * PICTURES, postcards.noise(seeds), SOLVER, STEPS,
                                 GUIDANCE).latents

    def find(pictures: list[Image.Image]) -> Nearest:
        distances, indices = nearest_pictures(as_array(pictures), training)
        return Nearest(pictures, [Image.fromarray(training[index]) for index in indices],
                       distances.tolist())

    stored = [Image.fromarray(picture) for picture in training[:PICTURES]]
    fresh = [postcards.painted(scene, number)[0] for number in seeds]
    return Memory(find(postcards.pictures(registry, made)), find(fresh),
                  find(through_autoencoder(registry, stored)), len(alike))


def told(found: Memory) -> str:
    return (f"Mean distance to the nearest of the {found.among} training pictures that show the "
            f"same subject, place and time: generated {found.generated.mean:.1f}, freshly painted "
            f"{found.fresh.mean:.1f}, training pictures through the autoencoder "
            f"{found.copies.mean:.1f} of 255 ({PICTURES} pictures each).")


def question(remember: Remember) -> Question:
    """Whether the model pastes stored pictures."""

    def grade() -> Answer:
        found = remember(SCENE, 0)
        expected = found.copies.mean, found.fresh.mean, 2 * found.fresh.mean
        return Answer(nearest(found.generated.mean, expected), told(found))

    return Question(
        f"postcards was trained with {TRAINING_PICTURES:,} painted pictures. “It pastes stored "
        f"pictures”, people say. How far is a generated “{postcards.PROMPT}” from the nearest "
        "training picture?",
        ("As near as a stored picture that went through the autoencoder",
         "As far as a freshly painted picture, which nobody stored",
         "Twice as far as a freshly painted one"), grade)


def check(remember: Remember, case: int) -> Question:
    """Another scene's nearest training pictures, or the norm of mixed noises."""
    rng = random.Random(f"latents {case}")
    return _check_memory(remember, rng) if case % 2 else _check_norm(rng)


def _check_norm(rng: random.Random) -> Question:
    share, seeds = rng.choice((0.1, 0.2, 0.5)), [rng.randrange(1, 1000) for _ in SEEDS]
    bounds = (24.0, 28.0)

    def grade() -> Answer:
        first, second = (postcards.noise([seed]) for seed in seeds)
        value = linear(first, second, share).norm().item()
        return Answer(interval(value, bounds),
                      f"Their norms are {first.norm():.1f} and {second.norm():.1f}, their angle is "
                      f"{math.degrees(angle_between(first, second)):.0f} degrees; the mixture's "
                      f"norm is {value:.1f}. Slerp gives "
                      f"{slerp(first, second, share).norm():.1f}.")

    return Question(
        f"A noise of {NUMBERS} numbers has a norm near {math.sqrt(NUMBERS):.0f}. Two of them, "
        f"seeds {seeds[0]} and {seeds[1]}, are mixed linearly, with a share of {share:g} of the "
        "second. "
        "Which norm has the mixture?",
        (f"Below {bounds[0]:g}", f"From {bounds[0]:g} to {bounds[1]:g}", f"Above {bounds[1]:g}"),
        grade)


def _check_memory(remember: Remember, rng: random.Random) -> Question:
    scene = next(scene for scene in iter(lambda: Scene(
        rng.choice(("boat", "fish", "cat", "rocket")), rng.choice(("blue", "orange", "pink")),
        rng.choice(("meadow", "sea", "desert")), rng.choice(("day", "sunset", "night"))), None)
        if not is_held_out(scene.subject, scene.colour, scene.place))

    seed = rng.randrange(1, 1000)

    def grade() -> Answer:
        found = remember(scene, seed)
        return Answer(int(found.fresh.mean < found.generated.mean), told(found))

    return Question(
        f"“{plain_caption(scene, random.Random(0))}”. Which are nearer to their nearest training "
        "pictures?", ("Generated pictures", "Freshly painted pictures"), grade)

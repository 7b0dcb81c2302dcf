"""Points of a mixture of Gaussians, and diffusers' schedulers that are run on them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.errors import RequestError, first_line
from pipelines.laboratory import driving
from pipelines.laboratory.conformance import Case
from pipelines.laboratory.mixture import Mixture
from pipelines.schedulers import scheduler_info

POINTS = 500
SPAN = 2.6  # half the side of what is drawn
GRID = 90
LEVELS = (0.5, 0.1, 0.01)  # of the highest density


@functools.cache
def noise_points(count: int = POINTS, seed: int = 0) -> Tensor:
    """Standard normal points, (count, 2)."""
    return torch.randn(count, 2, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed))


@functools.cache
def clean_points(mixture: Mixture, count: int = POINTS, seed: int = 0) -> Tensor:
    """Points of a mixture, (count, 2)."""
    return mixture.sample(count, torch.Generator().manual_seed(seed))


def contours(mixture: Mixture, signal: float = 1.0, noise: float = 0.0) -> list[Tensor]:
    """Lines of equal exact density, LEVELS of the highest, each (k, 2)."""
    from skimage.measure import find_contours

    axis = torch.linspace(-SPAN, SPAN, GRID, dtype=torch.float64)
    places = torch.cartesian_prod(axis, axis)
    density = mixture.log_density(places, signal, noise)
    density = (density - density.max()).exp().view(GRID, GRID).numpy()
    scale = 2 * SPAN / (GRID - 1)
    return [torch.from_numpy(line) * scale - SPAN
            for level in LEVELS for line in find_contours(density, level)]


@dataclass(frozen=True, eq=False)
class Run:
    """What a scheduler made of noise. `seen`: the points at each evaluation of the network,
    (evaluations, n, 2), with the signal and noise that they hold then."""

    path: driving.Path
    seen: Tensor
    scales: tuple[tuple[float, float], ...]

    @property
    def exact(self) -> Tensor:
        """Where the probability-flow ODE takes the same start, (n, 2); the starts for different
        numbers of steps are equal but for their last digits."""
        return self.path.exact(digits=4)

    @property
    def error(self) -> float:
        """Root mean square distance of the points to the exact ones."""
        return distance(self.path.end, self.exact)

    def ways(self, count: int) -> list[Tensor]:
        """The ways of the first points, each (evaluations + 1, 2)."""
        return [*torch.cat([self.seen, self.path.end[None]])[:, :count].transpose(0, 1)]


def make_scheduler(key: str, seed: int = 0):
    """A scheduler of the catalogue with the noise schedule and spacing that `postcards` has."""
    info = scheduler_info(key)
    options = {} if info.flow_matching else {"timestep_spacing": "trailing"}
    return Case(info.class_name, options, key).scheduler(seed)


@functools.lru_cache(512)
def run(
    key: str, steps: int, mixture: Mixture | None = None, count: int = POINTS, seed: int = 0
) -> Run:
    """Run a scheduler from noise; raises RequestError where it takes no such number of steps."""
    seen, scales = [], []

    def watch(points: Tensor, signal: float, noise: float) -> None:
        seen.append(points)
        scales.append((signal, noise))

    torch.manual_seed(seed)  # for those that draw noise without a generator
    try:
        path = driving.run(make_scheduler(key, seed), mixture or Mixture.three(), steps,
                           noise_points(count, seed), seed=seed, as_in_runs=True, watch=watch)
    except Exception as error:  # whatever a class of diffusers refuses with
        raise RequestError(f"{scheduler_info(key).label} with num_inference_steps={steps}: "
                           f"{first_line(error)}") from error
    return Run(path, torch.stack(seen), tuple(scales))


def distance(first: Tensor, second: Tensor) -> float:
    """Root mean square distance of points, (n, 2) each."""
    return (first - second).square().sum(1).mean().sqrt().item()


def lines_between(first: Tensor, second: Tensor) -> list[Tensor]:
    """A line (2, 2) from each point (n, 2) to its partner."""
    return [*torch.stack([first, second], 1)]

"""A small DDPM (Ho et al. 2020, arXiv:2006.11239) on points of the plane, trained while one looks.

Its data are a mixture of three Gaussians, so that the least loss that any network can have is
known, and so are the points that a perfect one makes of the same noise.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from pipelines.errors import StorageError, first_line
from pipelines.files import make_folder, write_file
from pipelines.laboratory import driving
from pipelines.laboratory.mixture import Mixture
from pipelines.lessons import plane
from pipelines.lessons.forward import noised, scheduler, signal_and_noise
from pipelines.lessons.question import Answer, Question, interval, nearest

SCHEDULE, TIMESTEPS = "scaled_linear", 1000
WIDTH, BATCH, LEARNING_RATE = 128, 256, 2e-3
STEPS = 8000  # 21 s of one core without other work
KEEP = (0, 100, 300, 1000, 3000, 8000)  # steps after which points are made and kept
SAVE_EVERY, MEAN_OF = 200, 50  # steps
POINTS, SOLVER, SAMPLING_STEPS = 300, "ddpm", 50
BOUNDS = (0.1, 0.3, 0.6)


class Network(nn.Module):
    """Predicts the noise in points (n, 2) from them and log(noise / signal)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 + 8, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(),
            nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 2))

    def forward(self, x: Tensor, log_sigma: Tensor) -> Tensor:
        """`x` (n, 2), `log_sigma` (n,)."""
        angles = log_sigma[:, None] * torch.tensor([0.25, 0.5, 1.0, 2.0])
        return self.layers(torch.cat([x, angles.sin(), angles.cos()], 1))

    @torch.no_grad()
    def prediction(self, kind: str, x: Tensor, signal: float, noise: float) -> Tensor:
        """As Mixture.prediction, of `epsilon` alone."""
        if kind != "epsilon":
            raise ValueError(f"prediction_type: received {kind!r}, accepted epsilon")
        log_sigma = torch.full((len(x),), noise / signal).log()
        return self(x.float(), log_sigma).double()


@dataclass
class Training:
    """A training as it stands: after `step` steps, with the mean loss of every MEAN_OF of them,
    and the points that the network made after those of KEEP that are over, each (POINTS, 2)."""

    seed: int
    step: int = 0
    losses: list[float] = field(default_factory=list)
    points: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = Network()
        self.optimiser = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)
        self.generator = torch.Generator().manual_seed(self.seed)
        self._sum = 0.0

    def loss(self, count: int = BATCH) -> Tensor:
        """The simple loss of Ho et al.: the mean square error of the predicted noise at uniform
        timesteps."""
        return loss(lambda x, signal, noise: self.network(x, (noise / signal).log()[:, 0]),
                    self.generator, count)

    def advance(self, steps: int) -> None:
        """Take steps of Adam, its rate falling to 0 at STEPS as a cosine."""
        for _ in range(steps):
            if self.step in KEEP:
                self.points[self.step] = sample(self.network)
            share = torch.tensor(min(1.0, self.step / STEPS) * torch.pi)
            self.optimiser.param_groups[0]["lr"] = LEARNING_RATE * (1 + share.cos().item()) / 2
            value = self.loss()
            self.optimiser.zero_grad()
            value.backward()
            self.optimiser.step()
            self.step += 1
            self._sum += value.item()
            if self.step % MEAN_OF == 0:
                self.losses.append(self._sum / MEAN_OF)
                self._sum = 0.0
        if self.step in KEEP:
            self.points[self.step] = sample(self.network)

    def save(self, path: Path) -> None:
        """All that going on takes, at a multiple of MEAN_OF steps; raises StorageError."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": value for name, value in values.items()}
        tensors |= {f"points.{step}": points for step, points in self.points.items()}
        tensors |= {"generator": self.generator.get_state(), "losses": torch.tensor(
            self.losses, dtype=torch.float64)}
        make_folder(path.parent)
        write_file(path, save({name: value.contiguous() for name, value in tensors.items()},
                              {"training": json.dumps({"seed": self.seed, "step": self.step})}))

    @classmethod
    def load(cls, path: Path) -> Training:
        """Raises StorageError where the file cannot be read, or is none of these."""
        try:
            with safe_open(path, "pt") as file:
                training = cls(**json.loads(file.metadata()["training"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            training.network.load_state_dict(_below("network.", tensors))
            adam: dict[int, dict[str, Tensor]] = {}
            for name, value in _below("adam.", tensors).items():
                number, _, part = name.partition(".")
                adam.setdefault(int(number), {})[part] = value
            groups = training.optimiser.state_dict()["param_groups"]
            training.optimiser.load_state_dict({"state": adam, "param_groups": groups})
            training.points = {int(step): points
                               for step, points in _below("points.", tensors).items()}
            training.losses = tensors["losses"].tolist()
            training.generator.set_state(tensors["generator"])
        except Exception as error:  # whatever a damaged file leads to
            raise StorageError(f"{path.name} is no training that can go on: {first_line(error)}"
                               ) from error
        return training


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in sorted(tensors.items())
            if name.startswith(prefix)}


def checkpoint(home: Path, seed: int) -> Path:
    """Where a training with a seed is kept, in a data folder."""
    return home / "lessons" / f"training-{seed}.safetensors"


def train(
    path: Path, seed: int, steps: int = STEPS, on_steps: Callable[[Training], None] | None = None
) -> Training:
    """Begin, or go on with what `path` holds, up to `steps`. `on_steps` is called after every
    SAVE_EVERY steps, when these are kept, and may raise Cancelled. A training that stopped and goes
    on ends in the same numbers as one that did not."""
    training = Training.load(path) if path.exists() else Training(seed)
    while training.step < steps:
        training.advance(min(SAVE_EVERY, steps - training.step))
        training.save(path)
        if on_steps:
            on_steps(training)
    return training


def loss(
    predict: Callable[[Tensor, Tensor, Tensor], Tensor], generator: torch.Generator, count: int,
    mixture: Mixture | None = None, timestep: int | None = None,
) -> Tensor:
    """The mean square error of the predicted noise in `count` points of a mixture, at uniform
    timesteps or one. `predict(x, signal, noise)`: (n, 2), (n, 1), (n, 1)."""
    clean = (mixture or Mixture.three()).sample(count, generator).float()
    noise = torch.randn(count, 2, generator=generator)
    timesteps = (torch.randint(TIMESTEPS, (count,), generator=generator) if timestep is None
                 else torch.full((count,), timestep))
    x = scheduler(SCHEDULE).add_noise(clean, noise, timesteps)
    alphas = scheduler(SCHEDULE).alphas_cumprod[timesteps, None]
    return (predict(x, alphas.sqrt(), (1 - alphas).sqrt()) - noise).square().mean()


@functools.lru_cache(32)
def least_loss(mixture: Mixture | None = None, timestep: int | None = None) -> float:
    """The loss of the perfect network, which none can beat: over 100 timesteps of 200 points, or at
    one."""
    data = mixture or Mixture.three()
    generator = torch.Generator().manual_seed(1)
    values = []
    for t in range(5, TIMESTEPS, 10) if timestep is None else [timestep]:
        signal, noise = signal_and_noise(SCHEDULE, t)

        def predict(x: Tensor, _signal: Tensor, _noise: Tensor, at=(signal, noise)) -> Tensor:
            return data.epsilon(x.double(), *at)

        count = 200 if timestep is None else 20_000
        values.append(loss(predict, generator, count, data, t).item())
    return sum(values) / len(values)


def sample(network: Network) -> Tensor:
    """Points that DDPMScheduler makes of noise with a network, (POINTS, 2)."""
    return driving.run(plane.make_scheduler(SOLVER), network, SAMPLING_STEPS,
                       plane.noise_points(POINTS)).end


def energy_distance(first: Tensor, second: Tensor) -> float:
    """How different two sets of points are distributed (Szekely and Rizzo 2013): 2 E|X - Y| -
    E|X - X'| - E|Y - Y'|, near 0 where they are not."""
    def within(points: Tensor) -> Tensor:
        return torch.cdist(points, points).sum() / (len(points) * (len(points) - 1))

    return (2 * torch.cdist(first, second).mean() - within(first) - within(second)).item()


def _grade() -> Answer:
    least = least_loss()
    return Answer(nearest(least, (0.0, least, 1.0)),
                  f"A perfect network has a loss of {least:.3f}: many clean points may lie behind "
                  "one noisy point, and the mean of their noises is the best guess "
                  "(Mixture.epsilon). A network that says 0 has a loss of 1.")


QUESTION = Question(
    "A small network learns to predict the noise in noisy points of the plane, as in DDPM. Its "
    "loss, the mean square error for each number, begins near 1. Where does it end?",
    ("Near 0: a good network sees all of the noise",
     "Well between 0 and 1: even a perfect network cannot know all of the noise",
     "Still near 1: noise cannot be predicted"), _grade)


def check(case: int) -> Question:
    """The least loss for one Gaussian at one timestep, which has a closed form."""
    rng = random.Random(f"training {case}")
    deviation, timestep = rng.choice((0.1, 0.3, 0.5, 1.0)), rng.choice((100, 200, 400, 600, 800))
    one = torch.ones(1, dtype=torch.float64)
    data = Mixture(torch.zeros(1, 2, dtype=torch.float64), deviation * one, one)

    def grade() -> Answer:
        measured, exact = least_loss(data, timestep), least_loss_of_gaussian(deviation, timestep)
        signal, noise = signal_and_noise(SCHEDULE, timestep)
        return Answer(interval(exact, BOUNDS),
                      f"a² s² / (a² s² + b²) with a = {signal:.3f}, b = {noise:.3f}: {exact:.3f}; "
                      f"measured on 20,000 points with Mixture.epsilon {measured:.3f}.")

    return Question(
        f"The data are one Gaussian with standard deviation {deviation:g}. Which loss has a "
        f"perfect network at timestep {timestep}?",
        (f"Below {BOUNDS[0]:g}", f"From {BOUNDS[0]:g} to {BOUNDS[1]:g}",
         f"From {BOUNDS[1]:g} to {BOUNDS[2]:g}", f"Above {BOUNDS[2]:g}"), grade)


def least_loss_of_gaussian(deviation: float, timestep: int) -> float:
    """The variance of the noise when x_t is known: a^2 s^2 / (a^2 s^2 + b^2)."""
    signal, noise = signal_and_noise(SCHEDULE, timestep)
    return signal**2 * deviation**2 / (signal**2 * deviation**2 + noise**2)


def noised_points(timestep: int, count: int = 500) -> Tensor:
    """Points of the data with the noise of a timestep, as the network sees them, (count, 2)."""
    return noised(SCHEDULE, plane.clean_points(Mixture.three(), count), plane.noise_points(count),
                  timestep)

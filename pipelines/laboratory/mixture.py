"""A mixture of Gaussians: all that a denoiser has to learn is known of it in closed form.

Of a point x0 of the mixture one sees x = signal * x0 + noise * epsilon, epsilon standard normal.
The density of x is again a mixture of Gaussians; its score, and with it what a perfect network
answers in any parametrisation, follow from that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

TOLERANCE = 1e-10  # relative, of the exact solution's steps


@dataclass(frozen=True, eq=False)
class Mixture:
    """K isotropic Gaussians in D dimensions, in float64: `means` (K, D), `deviations` (K,) and
    `weights` (K,), which sum to 1."""

    means: Tensor
    deviations: Tensor
    weights: Tensor

    @classmethod
    @functools.cache
    def three(cls) -> Mixture:
        """Three in the plane, none of them in the middle."""
        return cls(torch.tensor([[1.2, 0.0], [-0.8, 0.9], [-0.4, -1.1]], dtype=torch.float64),
                   torch.full((3,), 0.25, dtype=torch.float64),
                   torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))

    def given(self, components: Sequence[int]) -> Mixture:
        """The mixture of some components only: what a condition leaves."""
        chosen = list(components)
        weights = self.weights[chosen]
        return Mixture(self.means[chosen], self.deviations[chosen], weights / weights.sum())

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Points of the mixture, (count, D)."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        noise = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        return self.means[which] + self.deviations[which, None] * noise

    def log_density(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """Of the points (n, D) at this signal and noise: (n,)."""
        return self._log_joint(x, signal, noise).logsumexp(1)

    def score(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """The gradient of the log density, (n, D)."""
        offsets = x[:, None] - signal * self.means
        share = self._log_joint(x, signal, noise).softmax(1)
        return -(share / self._variances(signal, noise))[..., None].mul(offsets).sum(1)

    def epsilon(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """The mean of the noise in x, (n, D): what a network learns that predicts epsilon."""
        return -noise * self.score(x, signal, noise)

    def x0(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """The mean of the clean points that x may come from, (n, D)."""
        share = self._log_joint(x, signal, noise).softmax(1)
        gain = signal * self.deviations**2 / self._variances(signal, noise)
        means = self.means + gain[:, None] * (x[:, None] - signal * self.means)
        return (share[..., None] * means).sum(1)

    def prediction(self, kind: str, x: Tensor, signal: float, noise: float) -> Tensor:
        """What a perfect network answers: `kind` is a prediction_type of diffusers' schedulers."""
        x0, epsilon = self.x0(x, signal, noise), self.epsilon(x, signal, noise)
        match kind:
            case "epsilon":
                return epsilon
            case "sample":
                return x0
            case "v_prediction":  # Salimans & Ho 2022, arXiv:2202.00512
                return signal * epsilon - noise * x0
            case "flow_prediction":  # Lipman et al. 2022, arXiv:2210.02747
                return epsilon - x0
        raise ValueError(f"prediction_type: received {kind!r}, accepted epsilon, sample, "
                         "v_prediction, flow_prediction")

    def _variances(self, signal: float, noise: float) -> Tensor:
        return signal**2 * self.deviations**2 + noise**2

    def _log_joint(self, x: Tensor, signal: float, noise: float) -> Tensor:
        """log(weight * density) of each component, (n, K)."""
        variances = self._variances(signal, noise)
        squares = (x[:, None] - signal * self.means).square().sum(2)
        return (self.weights.log() - squares / (2 * variances)
                - 0.5 * x.shape[1] * (2 * np.pi * variances).log())


def solve(
    epsilon: Callable[[Tensor, float], Tensor], start: Tensor, sigma: float, end: float = 0.0
) -> Tensor:
    """Where the probability-flow ODE takes points (n, D) from `sigma` to `end`.

    In x / signal and sigma = noise / signal it reads dx/dsigma = epsilon(x, sigma) for every noise
    schedule (Karras et al. 2022, arXiv:2206.00364); solved to TOLERANCE by DOP853.
    """

    def slope(at: float, flat: np.ndarray) -> np.ndarray:
        return epsilon(torch.from_numpy(flat).view_as(start), at).reshape(-1).numpy()

    solution = solve_ivp(slope, (sigma, end), start.reshape(-1).numpy(), method="DOP853",
                         rtol=TOLERANCE, atol=TOLERANCE / 100)
    return torch.from_numpy(solution.y[:, -1].copy()).view_as(start)

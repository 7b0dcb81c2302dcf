"""Muon for the hidden weights, AdamW for the rest, under one learning rate."""

from __future__ import annotations

import torch
from torch import Tensor

ADAM_ONLY = ("_embedding.weight", "conv_in.", "conv_out.", "quant_conv.", ".heads.", ".lora_")


class Optimiser:
    """Updates named parameters from their gradients.

    Muon (Jordan et al., 2024) steps along the orthogonalised momentum of a weight matrix; with the
    scale of Liu et al., 2025 (0.2 sqrt(longer side)) it takes AdamW's learning rates. In a trial
    on this UNet six minutes of it gave a lower loss than nine minutes of AdamW.
    """

    def __init__(self, parameters: dict[str, Tensor], weight_decay: float = 0.01):
        self.parameters, self.weight_decay = parameters, weight_decay
        self.steps = 0
        self.momentum = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.by_shape: dict[tuple[int, int], list[str]] = {}
        for name, parameter in parameters.items():
            if parameter.ndim >= 2 and not any(part in name for part in ADAM_ONLY):
                shape = (parameter.shape[0], parameter[0].numel())
                self.by_shape.setdefault(shape, []).append(name)
        matrices = {name for names in self.by_shape.values() for name in names}
        self.square = {
            name: torch.zeros_like(p) for name, p in parameters.items() if name not in matrices
        }

    @torch.no_grad()
    def step(self, learning_rate: float, dtype: torch.dtype = torch.float32) -> None:
        """One update; `dtype` is the precision of Muon's iterations."""
        self.steps += 1
        torch._foreach_mul_(list(self.parameters.values()), 1 - learning_rate * self.weight_decay)
        self._step_adam(learning_rate, beta1=0.9, beta2=0.98)
        self._step_muon(learning_rate, dtype, beta=0.95)

    def _step_adam(self, learning_rate: float, beta1: float, beta2: float) -> None:
        names = list(self.square)
        gradients = [self.parameters[name].grad for name in names]
        momenta, squares = [self.momentum[name] for name in names], list(self.square.values())
        torch._foreach_lerp_(momenta, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, (1 - beta2**self.steps) ** 0.5)
        torch._foreach_add_(roots, 1e-8)
        rate = -learning_rate / (1 - beta1**self.steps)
        parameters = [self.parameters[name] for name in names]
        torch._foreach_addcdiv_(parameters, momenta, roots, rate)

    def _step_muon(self, learning_rate: float, dtype: torch.dtype, beta: float) -> None:
        for shape, names in self.by_shape.items():
            gradients = [self.parameters[name].grad for name in names]
            momenta = [self.momentum[name] for name in names]
            torch._foreach_lerp_(momenta, gradients, 1 - beta)
            nesterov = torch._foreach_lerp(gradients, momenta, beta)
            matrices = torch.stack([gradient.reshape(shape) for gradient in nesterov])
            updates = orthogonalise(matrices, dtype)
            updates *= 0.2 * max(shape) ** 0.5 * learning_rate
            for name, update in zip(names, updates, strict=True):
                parameter = self.parameters[name]
                parameter.sub_(update.reshape(parameter.shape))

    def state(self) -> dict[str, Tensor]:
        return {f"momentum.{name}": tensor for name, tensor in self.momentum.items()} | {
            f"square.{name}": tensor for name, tensor in self.square.items()
        }

    def load_state(self, state: dict[str, Tensor], steps: int) -> None:
        self.steps = steps
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def orthogonalise(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The batch with all singular values near 1, by five Newton-Schulz iterations."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype).contiguous()
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
        x = torch.baddbmm(x, polynomial, x, beta=3.4445)
    return (x.mT if tall else x).float()

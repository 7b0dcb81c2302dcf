"""Looks at how a denoiser attends to words, while it computes as always."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pipelines.errors import RequestError


class AttentionWatch(TorchFunctionMode):
    """While it is entered, keeps the weights of every cross-attention of a denoiser: `layers` maps
    the name of each layer to a tensor (rows, places, tokens) for each evaluation, the mean over the
    heads; over the tokens it sums to 1.

    They are computed beside torch's scaled_dot_product_attention from the queries and keys that it
    is given, after all that a model does to them before. Weights and attention processors of the
    model stay as they are; its hooks are gone on leaving. Raises RequestError where the denoiser
    has no cross-attention.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        from diffusers.models.attention import AttentionModuleMixin
        from diffusers.models.attention_processor import Attention

        self.layers: dict[str, list[Tensor]] = {}
        self._modules = {name: module for name, module in denoiser.named_modules()
                         if isinstance(module, Attention | AttentionModuleMixin)}
        self._denoiser = type(denoiser).__name__
        self._hooks: list[Any] = []
        self._inside: str | None = None

    def __enter__(self) -> AttentionWatch:
        for name, module in self._modules.items():
            self._hooks += [
                module.register_forward_pre_hook(self._entering(name), with_kwargs=True),
                module.register_forward_hook(self._left, always_call=True)]
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        if not self.layers and error[0] is None:
            raise RequestError(f"{self._denoiser}: no layer in which places attend to words alone; "
                               "accepted are denoisers with cross-attention")

    def _entering(self, name: str):
        def enter(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            words = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
            self._inside = None if words is None else name

        return enter

    def _left(self, *_: Any) -> None:
        self._inside = None

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.scaled_dot_product_attention and self._inside:
            query, key = args[:2]
            if query.shape[-2] != key.shape[-2]:  # else words and places attend together
                self.layers.setdefault(self._inside, []).append(weights(
                    query, key, kwargs.get("attn_mask"), kwargs.get("scale")))
        return function(*args, **kwargs)


@torch.no_grad()
def weights(
    query: Tensor, key: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) of (rows, heads, places, d) and (rows, heads, tokens, d), the mean
    over the heads: (rows, places, tokens)."""
    scores = query.float() @ key.float().transpose(-1, -2)
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1).mean(1)

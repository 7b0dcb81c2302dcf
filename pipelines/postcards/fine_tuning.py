"""What members of the family share that start from the bundled postcards: its parts, its captioned
latents, and one stage of learning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    SchedulerMixin,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from transformers import CLIPTextModel

from pipelines.postcards import model
from pipelines.postcards.diffusion import EMPTY_CAPTION_SHARE, CaptionedLatents, by_noise_level
from pipelines.postcards.loop import Loop, train_device
from pipelines.postcards.settings import Settings


@dataclass(frozen=True)
class Batch:
    """What a turn learns from: the numbers of its training pictures, shape (n,), their latents,
    (n, 4, h, w), and their captions as the text encoder reads them, (n, tokens, width)."""

    chosen: Tensor
    clean: Tensor
    context: Tensor


# From a batch and the context manager of the forward passes: the loss, and for the curves the error
# of each picture with how much noise it held, both of shape (n,).
Loss = Callable[[Batch, Callable[[], AbstractContextManager]], tuple[Tensor, Tensor, Tensor]]


class FineTuning:
    """Trains a copy of the teacher's UNet for another use; the text encoder stays as it is.
    `empty_share` of the captions is empty."""

    def __init__(self, settings: Settings, empty_share: float = EMPTY_CAPTION_SHARE) -> None:
        torch.manual_seed(0)
        self.settings, self.device = settings, train_device()
        self.text_encoder = CLIPTextModel.from_pretrained(settings.teacher / "text_encoder")
        self.text_encoder = self.text_encoder.to(self.device).eval().requires_grad_(False)
        self.captioned = CaptionedLatents(settings, empty_share)

    def unet(self) -> UNet2DConditionModel:
        """The teacher's UNet in float32, frozen."""
        unet = UNet2DConditionModel.from_pretrained(
            self.settings.teacher / "unet", torch_dtype=torch.float32
        )
        return unet.to(self.device).requires_grad_(False)

    @torch.no_grad()
    def context(self, ids: Tensor) -> Tensor:
        """Token ids, shape (n, tokens), as the text encoder reads them."""
        return self.text_encoder(input_ids=ids.to(self.device)).last_hidden_state

    def learn(
        self,
        rank: int,
        name: str,
        unet: UNet2DConditionModel,
        loss: Loss,
        learning_rate: float,
        seed: int,
        save: Callable[[UNet2DConditionModel, Path], None] = model.save_module,
    ) -> None:
        """Train those weights of `unet` that ask for gradients, all where none does; result: what
        `save` writes, called `name`, in the work folder."""
        if not any(parameter.requires_grad for parameter in unet.parameters()):
            unet.requires_grad_(True)
        if self.device.type == "cpu":
            # The backward pass of fused attention is slow on CPUs at this size.
            unet.set_attn_processor(AttnProcessor())
        size = self.settings.config.unet_batch_size
        loop = Loop(f"{name}-training", {"unet": unet}, self.settings.work, self.settings.minutes,
                    learning_rate=learning_rate, average=0.998, rank=rank, seed=seed)
        for _ in loop:
            chosen, clean, ids = self.captioned.draw(size)
            with loop.autocast():
                context = self.context(ids)
            batch = Batch(chosen, clean.to(self.device), context)
            value, error, noise = loss(batch, loop.autocast)
            loop.update(value, size, **by_noise_level(error, noise))
        if rank == 0:
            save(unet, self.settings.work / name)


def write_folder(
    settings: Settings,
    name: str,
    scheduler_class: type[SchedulerMixin],
    scheduler_config: Mapping[str, Any],
    call_defaults: Mapping[str, Any],
    pipeline_class: type[DiffusionPipeline] = StableDiffusionPipeline,
) -> None:
    """The finished model: the teacher's parts around the UNet called `name` in the work folder."""
    model.write_folder(
        settings.out,
        AutoencoderKL.from_pretrained(settings.teacher / "vae"),
        UNet2DConditionModel.from_pretrained(settings.work / name),
        CLIPTextModel.from_pretrained(settings.teacher / "text_encoder"),
        model.make_tokenizer(),
        scheduler_class,
        scheduler_config,
        call_defaults,
        pipeline_class,
    )

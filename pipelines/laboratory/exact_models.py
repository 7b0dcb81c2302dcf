"""Models whose denoiser is known in closed form, in diffusers' terms: a pipeline and its parts.

The weights are the means, deviations and weights of a mixture of Gaussians. So the density, the
score and the solution are known (mixture.py), and what a scheduler does to them is its own doing.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import diffusers
import torch
from diffusers import ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import (
    rescale_noise_cfg,
    retrieve_timesteps,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from pipelines.errors import RequestError
from pipelines.laboratory.mixture import Mixture
from pipelines.laboratory.scales import Scale, scale_of


class ExactDenoiser(ModelMixin, ConfigMixin):
    """What a perfect network answers, computed in float64 on the CPU wherever the weights lie.

    `means` (K, C, H, W); where H and W are 1, each place of a sample is a point by itself.
    `component_names`: the words that pick components. The other options describe the noise
    schedule, `prediction_type` 'flow_prediction' that of flow matching.
    """

    @register_to_config
    def __init__(
        self,
        component_names: Sequence[str],
        shape: Sequence[int] = (2, 1, 1),
        in_channels: int = 2,
        sample_size: int = 16,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        prediction_type: str = "epsilon",
    ) -> None:
        super().__init__()
        count = len(component_names)
        self.means = nn.Parameter(torch.zeros(count, *shape), requires_grad=False)
        self.deviations = nn.Parameter(torch.ones(count), requires_grad=False)
        self.weights = nn.Parameter(torch.ones(count) / count, requires_grad=False)

    @property
    def mixture(self) -> Mixture:
        means, deviations, weights = (part.detach().to("cpu", torch.float64) for part in (
            self.means.flatten(1), self.deviations, self.weights))
        return Mixture(means, deviations, weights / weights.sum())

    @functools.cached_property
    def scale(self) -> Scale:
        """How samples hold signal and noise at a timestep."""
        config = self.config
        if config.prediction_type == "flow_prediction":
            return scale_of(diffusers.FlowMatchEulerDiscreteScheduler(config.num_train_timesteps))
        return scale_of(diffusers.DDPMScheduler(
            config.num_train_timesteps, config.beta_start, config.beta_end, config.beta_schedule,
            prediction_type=config.prediction_type))

    @property
    def per_place(self) -> bool:
        """Whether each place of a sample is a point by itself."""
        return self.means[0, 0].numel() == 1

    def points(self, sample: Tensor) -> Tensor:
        """A sample (N, C, H, W) as points of the mixture, (count, D), in float64."""
        if self.per_place:
            sample = sample.movedim(1, -1)
        return sample.to("cpu", torch.float64).reshape(-1, self.means[0].numel())

    def forward(
        self, sample: Tensor, timestep: Tensor, components: Tensor, return_dict: bool = True
    ) -> tuple[Tensor]:
        """`sample` (N, C, H, W) at one timestep or N of them; `components` (N, K): true for those
        that a row's condition leaves."""
        timesteps = torch.as_tensor(timestep).cpu().expand(len(sample)).tolist()
        groups: dict[Any, list[int]] = defaultdict(list)
        for row, key in enumerate(zip(timesteps, map(tuple, components.tolist()), strict=True)):
            groups[key].append(row)
        mixture, answer = self.mixture, torch.empty_like(sample)
        for (at, mask), rows in groups.items():
            part = sample[rows]
            answers = self.scale.answer(
                mixture.given([number for number, kept in enumerate(mask) if kept]),
                self.points(part), torch.tensor(at, dtype=torch.float64))
            if self.per_place:
                answers = answers.view(part.movedim(1, -1).shape).movedim(-1, 1)
            answer[rows] = answers.reshape(part.shape).to(part)
        return (answer,)


class PointPlot(ModelMixin, ConfigMixin):
    """Draws latents of two channels as points of the plane, over the density of the mixture.

    `extent`: the coordinate at the rim of the picture. `block_out_channels` has, as in diffusers'
    autoencoders, one entry more than the side of the latents is doubled.
    """

    @register_to_config
    def __init__(
        self,
        components: int = 3,
        extent: float = 2.5,
        block_out_channels: Sequence[int] = (1, 1, 1, 1, 1),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.zeros(components, 2, 1, 1), requires_grad=False)
        self.deviations = nn.Parameter(torch.ones(components), requires_grad=False)
        self.weights = nn.Parameter(torch.ones(components) / components, requires_grad=False)

    def decode(self, latents: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """(N, 2, H, W) as pictures (N, 3, height, width) from -1 to 1; the second axis points
        up."""
        side = 2 ** (len(self.config.block_out_channels) - 1)
        height, width = (side * length for length in latents.shape[-2:])
        extent = self.config.extent
        columns = torch.linspace(-extent, extent, width, device=latents.device)
        lines = torch.linspace(extent, -extent, height, device=latents.device)
        squares = ((columns[None, None] - self.means[:, 0].float()) ** 2
                   + (lines[None, :, None] - self.means[:, 1].float()) ** 2)
        variances = self.deviations.float()[:, None, None] ** 2
        heights = self.weights.float()[:, None, None] / variances
        density = (heights * (-squares / 2 / variances).exp()).sum(0)
        points = latents.float().flatten(2)
        dot = 2.5 * extent / width  # coordinates: the dots' deviation
        across = (-((points[:, 0, :, None] - columns) / dot) ** 2 / 2).exp()
        down = (-((points[:, 1, :, None] - lines) / dot) ** 2 / 2).exp()
        ink = 1 - (-2 * torch.einsum("nph,npw->nhw", down, across)).exp()
        paper, shade, blue = (torch.tensor(colour, device=latents.device)[:, None, None]
                              for colour in ((1.0, 1.0, 1.0), (0.99, 0.80, 0.55),
                                             (0.10, 0.30, 0.65)))
        ground = paper + (shade - paper) * density / density.max()
        pictures = ground + (blue - ground) * ink[:, None]
        return ((2 * pictures - 1).to(latents),)


class LinearDecoder(ModelMixin, ConfigMixin):
    """Each latent as a square of pixels, whose colour is a linear map of its channels."""

    @register_to_config
    def __init__(
        self,
        channels: int = 4,
        block_out_channels: Sequence[int] = (1, 1, 1),
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.colours = nn.Parameter(torch.zeros(3, channels), requires_grad=False)

    def decode(self, latents: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        """(N, channels, H, W) as pictures (N, 3, height, width) from -1 to 1."""
        side = 2 ** (len(self.config.block_out_channels) - 1)
        pixels = torch.einsum("rc,nchw->nrhw", self.colours.to(latents), latents)
        return (pixels.repeat_interleave(side, 2).repeat_interleave(side, 3),)


class ExactPipeline(DiffusionPipeline):
    """Text-to-image with a perfect denoiser: the words of a prompt pick components of the mixture,
    a prompt that names none means all of them."""

    model_cpu_offload_seq = "denoiser->vae"

    def __init__(self, denoiser: ExactDenoiser, vae: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, vae=vae, scheduler=scheduler)
        self.vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.image_processor = VaeImageProcessor(vae_scale_factor=self.vae_scale_factor)

    def encode_prompt(self, prompt: str) -> Tensor:
        """(1, K): true for the components that a prompt names, for all where it names none."""
        named = self._named(prompt)
        chosen = named if any(named) else [True] * len(named)
        return torch.tensor([chosen], device=self.denoiser.device)

    def _named(self, prompt: str) -> list[bool]:
        """Which components the words of a prompt name."""
        words = re.findall(r"\w+", prompt.lower())
        return [name in words for name in self.denoiser.config.component_names]

    def prompt_note(self, prompt: str) -> str | None:
        """That the words of a prompt have no effect, None where they have one."""
        if not prompt.strip() or any(self._named(prompt)):
            return None
        names = ", ".join(self.denoiser.config.component_names)
        return f"no effect, it names none of the components {names}; all are left"

    def prepare_latents(
        self, height: int, width: int, generator: torch.Generator | None, latents: Tensor | None
    ) -> Tensor:
        """Noise as large as the scheduler starts with."""
        config = self.denoiser.config
        shape = (1, config.in_channels, height // self.vae_scale_factor,
                 width // self.vae_scale_factor)
        side = config.sample_size
        if not self.denoiser.per_place and shape[-2:] != (side, side):
            own = side * self.vae_scale_factor
            raise RequestError(f"width, height: received {width} x {height}, accepted for a "
                               f"mixture of whole pictures: {own} x {own}")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self.denoiser.device,
                                   dtype=self.denoiser.dtype)
        return latents * getattr(self.scheduler, "init_noise_sigma", 1.0)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str = "",
        negative_prompt: str = "",
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 20,
        timesteps: list[int] | None = None,
        sigmas: list[float] | None = None,
        guidance_scale: float = 1.0,
        guidance_rescale: float = 0.0,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
    ) -> ImagePipelineOutput:
        """One picture. Above 1, `guidance_scale` leads away from the mixture that the negative
        prompt leaves (Ho & Salimans 2022, arXiv:2207.12598)."""
        guided = guidance_scale > 1
        components = self.encode_prompt(prompt)
        if guided:
            components = torch.cat([self.encode_prompt(negative_prompt), components])
        own = self.denoiser.config.sample_size * self.vae_scale_factor
        timesteps, num_inference_steps = retrieve_timesteps(
            self.scheduler, num_inference_steps, self.denoiser.device, timesteps, sigmas)
        latents = self.prepare_latents(height or own, width or own, generator, latents)
        known = inspect.signature(self.scheduler.step).parameters
        options = {name: value for name, value in (("eta", eta), ("generator", generator))
                   if name in known}
        for timestep in timesteps:
            seen = latents
            if hasattr(self.scheduler, "scale_model_input"):
                seen = self.scheduler.scale_model_input(latents, timestep)
            output = self.denoiser(seen.repeat(len(components), 1, 1, 1), timestep,
                                   components=components, return_dict=False)[0]
            if guided:
                unconditional, conditional = output.chunk(2)
                output = unconditional + guidance_scale * (conditional - unconditional)
                if guidance_rescale > 0:
                    output = rescale_noise_cfg(output, conditional, guidance_rescale)
            latents = self.scheduler.step(output, timestep, latents, return_dict=False,
                                          **options)[0]
        if output_type == "latent":
            return ImagePipelineOutput(images=latents)
        pixels = self.vae.decode(latents.to(self.vae.device, self.vae.dtype),
                                 return_dict=False)[0]
        return ImagePipelineOutput(
            images=self.image_processor.postprocess(pixels, output_type=output_type))

"""The predicted x0 at each step: kept small while the clock runs, drawn when it stands still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.models.parts import autoencoder_of
from pipelines.painting.timing import Timings
from pipelines.pixels import flat

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

MAX_KEPT = 50  # steps of a run
LATENT_SIDE = 32  # larger latents are pooled, so that a preview costs little
LONGEST_SIDE = 128  # pixels of a picture in the strip
FREE_MS, FREE_SHARE = 5000, 0.2  # what decoding a strip may take, or as a share of the run
EXACT = ("PointPlot", "LinearDecoder")  # the laboratory's, which decode any size
AT_ONCE = 8  # rows of a decoding batch


def kept_steps(total: int) -> list[int]:
    """The numbers of the steps that are kept, from 1, evenly chosen, the last among them."""
    count = min(total, MAX_KEPT)
    return [round(1 + i * (total - 1) / max(1, count - 1)) for i in range(count - 1)] + [total]


@dataclass(frozen=True)
class StepLatents:
    """What the denoiser expected at some steps: `x0` is (kept, channels, height, width), at most
    LATENT_SIDE wide and high, in half precision on the CPU; `numbers` says which steps, from 1."""

    x0: torch.Tensor
    numbers: tuple[int, ...]


class StepKeeper:
    """Keeps what the predicted x0 of each step is computed from; the computing comes later."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self._kept: list[tuple[int, Any, torch.Tensor, torch.Tensor]] = []
        self._chosen: set[int] = set()
        self._seen = 0

    def look(
        self,
        total: int,
        scaled_input: torch.Tensor,
        timestep: Any,
        model_output: torch.Tensor,
        sample: torch.Tensor,
    ) -> None:
        """Keep one step of `total`. x0 is linear in its inputs, so pooling them pools it."""
        if not _knows_x0(self.scheduler) or scaled_input.ndim != sample.ndim:
            return
        self._chosen = self._chosen or set(kept_steps(total))
        self._seen += 1
        if self._seen in self._chosen:
            seen = _what_x0_needs(self.scheduler, scaled_input, model_output, sample)
            if seen[0].shape == seen[1].shape:
                self._kept.append((self._seen, timestep, *map(pooled, seen)))

    def finish(self) -> tuple[torch.Tensor, tuple[int, ...]] | None:
        """x0 as (kept, rows, ...) and the numbers of the steps; None where nothing was kept."""
        import torch

        if not self._kept:
            return None
        numbers, times, scaled, outputs = zip(*self._kept, strict=True)
        times = torch.stack([torch.as_tensor(t) for t in times]).cpu()
        seen, outputs = torch.stack(scaled).float(), torch.stack(outputs).float()
        x0 = predicted_x0(self.scheduler, seen, times, outputs)
        return x0, numbers


def step_latents(
    pipe: DiffusionPipeline, keeper: StepKeeper, height: int, width: int
) -> StepLatents | None:
    """The kept steps of a picture, None for latents of an unknown packing."""
    kept = keeper.finish()
    x0 = None if kept is None else _unpacked(pipe, kept[0][:, 0], height, width)
    return None if x0 is None else StepLatents(x0.half().cpu(), kept[1])


def _unpacked(
    pipe: DiffusionPipeline, x0: torch.Tensor, height: int, width: int
) -> torch.Tensor | None:
    """(kept, channels, height, width) of the kept steps of one picture."""
    if x0.ndim == 3 and hasattr(pipe, "_unpack_latents"):
        try:
            x0 = pipe._unpack_latents(x0, height, width, pipe.vae_scale_factor)
            x0 = pooled(x0[:, :, 0] if x0.ndim == 5 else x0)  # a film of one picture
        except (RuntimeError, TypeError):
            return None
    return x0 if x0.ndim == 4 else None


def pooled(latents: torch.Tensor) -> torch.Tensor:
    """At most LATENT_SIDE wide and high; packed latents, (rows, length, channels), as they are."""
    from torch.nn.functional import adaptive_avg_pool2d

    longest = max(latents.shape[-2:])
    if latents.ndim != 4 or longest <= LATENT_SIDE:
        return latents
    size = [max(1, side * LATENT_SIDE // longest) for side in latents.shape[-2:]]
    return adaptive_avg_pool2d(latents, size)


def draw_strip(
    pipe: DiffusionPipeline,
    steps: StepLatents,
    picture: Image.Image,
    timings: Timings,
    quick: bool = False,
) -> Image.Image:
    """The kept steps side by side, each at most LONGEST_SIDE pixels wide and high.

    Decoded where that costs little beside the run (its measured decoding tells), else, or where
    `quick` is asked for, through a linear map from latents to pixels, fitted on the run's own last
    latents and picture.
    """
    allowed = 0 if quick else max(FREE_MS, FREE_SHARE * timings.total)
    cheap = _decoding_ms(pipe, steps.x0, picture, timings) <= allowed
    images = decoded(pipe, steps.x0) if cheap else None
    if images is None:
        images = _linear_decode(steps.x0.float().nan_to_num(), picture)
    for image in images:
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for number, image in enumerate(images):
        strip.paste(image, (number * width, 0))
    return strip


def decoded(pipe: DiffusionPipeline, x0: torch.Tensor) -> list[Image.Image] | None:
    """A picture for each of (N, channels, height, width) latents; None where latents of another
    size than the model's own mean nothing to its decoder."""
    import torch

    vae = autoencoder_of(pipe)
    if vae is None:
        return _pictures(x0 / 2 + 0.5) if x0.shape[1] == 3 else None
    kind = type(vae).__name__
    if not ("AutoencoderKL" in kind or kind in EXACT) or "scaling_factor" not in vae.config:
        return None
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents = x0.to(vae.device, vae.dtype) / vae.config.scaling_factor + shift
    with torch.no_grad():
        return [picture for part in latents.split(AT_ONCE)
                for picture in _pictures(vae.decode(part, return_dict=False)[0] / 2 + 0.5)]


def _pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """(N, 3, H, W) from 0 to 1 as pictures."""
    values = (pixels.float().nan_to_num().clamp(0, 1) * 255).round().byte().cpu()
    return [Image.fromarray(value) for value in values.permute(0, 2, 3, 1).numpy()]


def _decoding_ms(
    pipe: DiffusionPipeline, x0: torch.Tensor, picture: Image.Image, timings: Timings
) -> float:
    """What decoding the strip should take, told from the decoding of the picture."""
    factor = getattr(pipe, "vae_scale_factor", 8)
    share = x0.shape[-1] * x0.shape[-2] * factor**2 / (picture.width * picture.height)
    return len(x0) * share * timings.decoding


def _linear_decode(x0: torch.Tensor, picture: Image.Image) -> list[Image.Image]:
    """Pictures from each latent and its eight neighbours, by ridge regression on the last step."""
    import numpy as np
    import torch
    from torch.nn.functional import pad, pixel_shuffle, pixel_unshuffle, unfold

    height, width = x0.shape[-2:]
    patch = max(1, LONGEST_SIDE // max(height, width))
    small = flat(picture).resize((width * patch, height * patch), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    windows = unfold(pad(x0, [1] * 4, mode="replicate"), 3).transpose(1, 2)
    windows = torch.cat([windows, torch.ones_like(windows[..., :1])], -1)
    known, wanted = windows[-1], pixel_unshuffle(pixels[None], patch)[0].flatten(1).T
    ridge = torch.eye(known.shape[1]) * known.var()
    weights = torch.linalg.solve(known.T @ known + ridge, known.T @ wanted)
    out = (windows @ weights).transpose(1, 2).unflatten(2, (height, width))
    return _pictures(pixel_shuffle(out, patch))


def _what_x0_needs(
    scheduler: Any, scaled_input: torch.Tensor, model_output: torch.Tensor, sample: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows and channels of `sample` (inputs may be doubled, outputs carry a variance)."""
    if _is_flow(scheduler) or _is_edm(scheduler):
        scaled_input = sample
    if sample.ndim != 4:
        return scaled_input[: len(sample)], model_output[: len(sample)]
    channels = sample.shape[1]
    return scaled_input[: len(sample), :channels], model_output[: len(sample), :channels]


def _knows_x0(scheduler: Any) -> bool:
    """Whether the predicted x0 follows from what a scheduler's step is given."""
    config = getattr(scheduler, "config", {})
    if hasattr(scheduler, "alphas_cumprod"):
        return "prediction_type" in config
    if _is_edm(scheduler):
        return True
    return type(scheduler).__name__.startswith("FlowMatch") and "num_train_timesteps" in config


def _is_edm(scheduler: Any) -> bool:
    """Karras et al. 2022, arXiv:2206.00364: preconditioned, timesteps are log(sigma) / 4."""
    return hasattr(scheduler, "precondition_outputs")


def _is_flow(scheduler: Any) -> bool:
    return (not hasattr(scheduler, "alphas_cumprod") and not _is_edm(scheduler)
            or scheduler.config.get("prediction_type") == "flow_prediction")


def predicted_x0(
    scheduler: Any, seen: torch.Tensor, timesteps: torch.Tensor, model_output: torch.Tensor
) -> torch.Tensor:
    """The clean latents that the denoiser expects at K (possibly fractional) timesteps.

    `seen` and `model_output` have K as their first dimension. `seen` is what the denoiser saw:
    sqrt(a) x0 + sqrt(1 - a) noise for every scheduler, whatever scale its own samples have. a:
    alphas_cumprod, interpolated in log space. For flow matching it is (1 - s) x0 + s noise and the
    output noise - x0, with s = t / T.
    """
    import torch

    def along(values: torch.Tensor) -> torch.Tensor:
        return values.to(seen).view(-1, *[1] * (seen.ndim - 1))

    if _is_flow(scheduler):
        return seen - along(timesteps / scheduler.config.num_train_timesteps) * model_output
    if _is_edm(scheduler):
        sigmas = along((4 * timesteps).exp())
        return scheduler.precondition_outputs(seen, model_output, sigmas)
    # CogVideoX's are float64; those rescaled to zero terminal SNR end in 0.
    log_alphas = scheduler.alphas_cumprod.cpu().float().clamp(min=1e-38).log()
    t = timesteps.float().clamp(0, len(log_alphas) - 1)
    low = t.long()
    high = (low + 1).clamp(max=len(log_alphas) - 1)
    alphas = torch.lerp(log_alphas[low], log_alphas[high], t - low).exp()
    signal, noise = along(alphas.sqrt()), along((1 - alphas).sqrt())
    match scheduler.config.prediction_type:
        case "epsilon":
            return (seen - noise * model_output) / signal
        case "v_prediction":
            return signal * seen - noise * model_output
        case _:
            return model_output

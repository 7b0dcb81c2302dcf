"""`python -m pipelines.bench`: the engine against plain diffusers, as ratios from one run.

Variants are interleaved and repeated; medians are compared. Nothing is logged. `--large` adds
random weights of the true shapes of SD 1.5, two steps each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipelines.comparison import Comparison
from pipelines.generation import generate, resolve, run_scheduler
from pipelines.hardware import environment
from pipelines.noise import make_generator
from pipelines.registry import LoadedModel, Registry
from pipelines.request import RunRequest
from pipelines.shared import generate_shared

if TYPE_CHECKING:
    import torch

AXES = ["scheduler=ddim,euler,dpmpp_2m,unipc,heun,euler_a", "guidance_scale=1,3,5,7.5,12"]
PROMPT = "a red car on a road at night"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--large", action="store_true", help="SD 1.5's shapes too (4 GB)")
    options = parser.parse_args()
    registry = Registry()
    machine = environment(registry.device)
    print(", ".join(f"{name} {machine[name]}" for name in (
        "device_name", "torch_threads", "torch", "diffusers", "transformers")))
    with registry.borrow("postcards") as (model, _):
        bench(model, options.num_inference_steps, options.repeats)
    if options.large:
        model = stable_diffusion_15(registry)
        bench(model, 2, options.repeats)


def bench(model: LoadedModel, steps: int, repeats: int) -> None:
    """Print the ratios for one model."""
    base = RunRequest(model_id=model.info.model_id, prompt=PROMPT, num_inference_steps=steps)
    cells = [resolve(cell.request, model.info) for cell in Comparison.parse(base, AXES).cells()]
    one = next(r for r in cells if r.scheduler == "ddim" and r.guidance_scale == 5)
    plain(model, one)
    row_ms, batch = best_row_ms(model, one)
    rows = rows_to_compute(model, cells)
    print(f"\n{model.info.model_id}, {one.width} x {one.height} px, {steps} steps")
    single = compare(repeats * 3, {
        "pipe()": lambda: plain(model, one),
        "engine, one picture": lambda: generate(model, one),
        "bare UNet loop": lambda: bare_loop(model, one),
    })  # fmt: skip
    table(single)
    grid = compare(repeats, {
        "pipe() per cell": lambda: [plain(model, r) for r in cells],
        "engine, cell by cell": lambda: [generate(model, r) for r in cells],
        "engine, shared": lambda: generate_shared(model, cells, lambda number, result: None),
    })  # fmt: skip
    table(grid)
    limit = rows * row_ms / 1000
    print(f"limit: {rows} UNet rows x {row_ms:.2f} ms (best, at {batch} rows a call) = {limit:.2f} "
          f"s; shared is {grid['engine, shared'] / limit:.2f} times that")
    shared, alone = memory(model)
    print(f"weights: three tasks {shared / 1e6:.1f} MB, one {alone / 1e6:.1f} MB: "
          f"{shared / alone:.2f}")


def compare(repeats: int, variants: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each variant, in turns, after one turn that is thrown away."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def table(seconds: dict[str, float]) -> None:
    first = next(iter(seconds.values()))
    for name, value in seconds.items():
        print(f"  {name:24s} {value:8.3f} s   {value / first:5.2f} of the first, "
              f"{first / value:5.2f} times as fast")


def plain(model: LoadedModel, request: RunRequest) -> Any:
    """What a notebook does: a fresh scheduler and one call of the pipeline."""
    pipe = model.view("text-to-image")
    pipe.scheduler = run_scheduler(model, request)
    return pipe(
        request.prompt, num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale, height=request.height, width=request.width,
        generator=make_generator(request.seed),
    )  # fmt: skip


def unet_inputs(model: LoadedModel, request: RunRequest, rows: int) -> tuple[torch.Tensor, ...]:
    import torch

    pipe = model.pipe
    sides = (request.height // pipe.vae_scale_factor, request.width // pipe.vae_scale_factor)
    latents = torch.randn(rows, pipe.unet.config.in_channels, *sides)
    embeddings, _ = pipe.encode_prompt(request.prompt, pipe.device, rows, False)
    return latents.to(pipe.device, pipe.dtype), embeddings


def bare_loop(model: LoadedModel, request: RunRequest) -> None:
    """The UNet's own time: two rows a step, nothing else."""
    import torch

    with torch.no_grad():
        latents, embeddings = unet_inputs(model, request, 2)
        for t in range(request.num_inference_steps):
            model.pipe.unet(latents, t, encoder_hidden_states=embeddings)


def best_row_ms(model: LoadedModel, request: RunRequest) -> tuple[float, int]:
    """The least time per UNet row over several batch sizes, and the batch size that had it."""
    import torch

    found = []
    with torch.no_grad():
        for rows in (1, 2, 4, 8, 16, 32, 64):
            latents, embeddings = unet_inputs(model, request, rows)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                model.pipe.unet(latents, 500, encoder_hidden_states=embeddings)
                if model.device.startswith("cuda"):
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            found.append((statistics.median(times) * 1000 / rows, rows))
            if min(times) > 20:
                break
    return min(found)


def rows_to_compute(model: LoadedModel, cells: list[RunRequest]) -> int:
    """The UNet rows of a shared run, counted."""
    seen: list[int] = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        generate_shared(model, cells, lambda number, result: None)
    finally:
        hook.remove()
    return sum(seen)


def memory(model: LoadedModel) -> tuple[int, int]:
    """Bytes of the distinct tensors of three tasks' views, and of one."""
    views = [model.view(task) for task in ("text-to-image", "image-to-image", "inpainting")]

    def size(pipes: list[Any]) -> int:
        tensors = {p.data_ptr(): p.numel() * p.element_size() for pipe in pipes
                   for part in (pipe.unet, pipe.vae, pipe.text_encoder)
                   for p in part.parameters()}
        return sum(tensors.values())

    return size(views), size(views[:1])


def stable_diffusion_15(registry: Registry) -> LoadedModel:
    """Random weights of SD 1.5's UNet under the bundled model's text encoder and tokenizer."""
    import dataclasses

    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel

    with registry.borrow("postcards") as (small, _):
        unet = UNet2DConditionModel(
            sample_size=64, cross_attention_dim=small.pipe.text_encoder.config.hidden_size)
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        pipe = StableDiffusionPipeline(
            unet=unet, vae=vae, text_encoder=small.pipe.text_encoder,
            tokenizer=small.pipe.tokenizer, scheduler=small.pipe.scheduler, safety_checker=None,
            feature_extractor=None, requires_safety_checker=False,
        ).to(registry.device)  # fmt: skip
        info = dataclasses.replace(small.info, model_id="SD 1.5's shapes", height=512, width=512)
        return LoadedModel(info, "", registry.device, small.dtype, 0.0, pipe, small.classes)


if __name__ == "__main__":
    main()

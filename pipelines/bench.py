"""`python -m pipelines.bench`: the engine against plain diffusers, as ratios from one run.

The bundled model, and random weights of the true shapes of SD 1.5 and SDXL: of these two steps of
a smaller grid, on the CPU at 256 px and once (half an hour on two cores; `--models postcards`
leaves them out). Variants are interleaved and repeated; medians are compared. Nothing is logged.
`--output` keeps what was printed (docs/bench.md).
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.comparison import Comparison
from pipelines.hardware import environment, free_memory_bytes
from pipelines.making import make_picture, make_pictures
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import free_memory, place, weight_bytes
from pipelines.models.registry import Registry
from pipelines.models.signatures import task_classes
from pipelines.painting.call import run_scheduler
from pipelines.painting.noise import make_generator
from pipelines.painting.resolve import resolve
from pipelines.request import RunRequest

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

AXES = ("scheduler=ddim,euler,dpmpp_2m,unipc,heun,euler_a", "guidance_scale=1,3,5,7.5,12")
SMALL_AXES = ("scheduler=ddim,dpmpp_2m", "guidance_scale=1,5,12")
PROMPT = "a red car on a road at night"
CPU_SIDE = 256  # pixels of the large models there; their own 512 and 1024 take minutes a call
# Single pictures, which differ by a few hundredths, are repeated more often than grids.
SINGLE_SECONDS, MOST_TURNS = 20, 50
_printed: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["postcards", *LARGE],
                        default=["postcards", *LARGE])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    registry = Registry()
    machine = environment(registry.device)
    say(", ".join(f"{name} {machine[name]}" for name in (
        "device_name", "torch_threads", "torch", "diffusers", "transformers")))
    if "postcards" in options.models:
        with registry.borrow("postcards") as (model, _):
            bench(model, AXES, options.num_inference_steps, options.repeats)
    for name, (build, gigabytes) in LARGE.items():
        if name not in options.models:
            continue
        free = free_memory_bytes(registry.device) / 1e9
        if free < gigabytes:
            say(f"\n{name}: left out, it needs {gigabytes} GB of memory and {free:.1f} GB are free")
            continue
        repeats = 1 if registry.device == "cpu" else options.repeats
        bench(build(registry), SMALL_AXES, 2, repeats)
        free_memory(registry.device)
    if options.output:
        command = " ".join(["python -m pipelines.bench", *sys.argv[1:]])
        text = "\n".join(_printed)
        options.output.write_text(
            f"# Benchmark\n\n`{command}`, {datetime.date.today()}. Ratios of one run; the seconds "
            f"depend on the machine.\n\n```\n{text}\n```\n", encoding="utf-8")


def say(text: str) -> None:
    print(text, flush=True)
    _printed.append(text)


def bench(model: LoadedModel, axes: Sequence[str], steps: int, repeats: int) -> None:
    """Print the ratios for one model."""
    base = RunRequest(model_id=model.info.model_id, prompt=PROMPT, num_inference_steps=steps)
    cells = [resolve(cell.request, model.info) for cell in Comparison.parse(base, axes).cells]
    one = next(r for r in cells if r.scheduler == "ddim" and r.guidance_scale == 5)
    say(f"\n{model.info.model_id}, {one.width} x {one.height} px, {steps} steps, "
        f"{len(cells)} cells: {'; '.join(axes)}")
    notebook = untouched(model.pipe)
    for _ in range(2):
        start = time.perf_counter()
        plain(model, notebook, one)
    turns = max(repeats, min(MOST_TURNS, int(SINGLE_SECONDS / (time.perf_counter() - start))))
    row_ms, batch = best_row_ms(model, one)
    rows = rows_to_compute(model, cells)
    single = compare(turns, {
        "pipe()": lambda: plain(model, notebook, one),
        "engine, one picture": lambda: make_picture(model, one),
        "bare UNet loop": lambda: bare_loop(model, one),
    })  # fmt: skip
    table(single)
    grid = compare(repeats, {
        "pipe() per cell": lambda: [plain(model, notebook, r) for r in cells],
        "engine, cell by cell": lambda: [make_picture(model, r) for r in cells],
        "engine, shared": lambda: make_pictures(
            model, cells, lambda request: {}, lambda number, result: None),
    })  # fmt: skip
    table(grid)
    limit = rows * row_ms / 1000
    say(f"limit: {rows} UNet rows x {row_ms:.2f} ms (best, at {batch} rows a call) = {limit:.2f} "
        f"s; shared is {grid['engine, shared'] / limit:.2f} times that")
    shared, alone = memory(model)
    say(f"weights: three tasks {shared / 1e6:.1f} MB, one {alone / 1e6:.1f} MB: "
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
        say(f"  {name:24s} {value:8.3f} s   {value / first:5.2f} of the first, "
            f"{first / value:5.2f} times as fast")


def untouched(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """The pipeline as diffusers loads it: weights that the registry laid out anew are copied back
    to their usual order, the others are shared."""
    import torch

    def part(module: Any) -> Any:
        if not isinstance(module, torch.nn.Module):
            return module
        same = {id(p): p for p in module.parameters() if p.is_contiguous()}
        return copy.deepcopy(module, same).to(memory_format=torch.contiguous_format)

    pipe = type(pipe)(**{name: part(value) for name, value in pipe.components.items()})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain(model: LoadedModel, pipe: DiffusionPipeline, request: RunRequest) -> Any:
    """What a notebook does: a fresh scheduler and one call of the pipeline."""
    pipe.scheduler = run_scheduler(model, request)
    return pipe(
        request.prompt, num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale, height=request.height, width=request.width,
        generator=make_generator(request.seed),
    )  # fmt: skip


def unet_inputs(model: LoadedModel, request: RunRequest, rows: int) -> dict[str, Any]:
    """What a UNet call of so many rows takes."""
    import torch

    pipe, unet = model.pipe, model.pipe.unet
    sides = (request.height // pipe.vae_scale_factor, request.width // pipe.vae_scale_factor)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(rows, *shape).to(pipe.device, unet.dtype)

    tokens = pipe.tokenizer.model_max_length
    inputs = {"sample": random(unet.config.in_channels, *sides), "timestep": 500,
              "encoder_hidden_states": random(tokens, unet.config.cross_attention_dim)}
    if unet.config.addition_embed_type:
        pooled = pipe.text_encoder_2.config.projection_dim
        inputs["added_cond_kwargs"] = {"text_embeds": random(pooled), "time_ids": random(6)}
    return inputs


def bare_loop(model: LoadedModel, request: RunRequest) -> None:
    """The UNet's own time: two rows a step, nothing else."""
    import torch

    with torch.no_grad():
        inputs = unet_inputs(model, request, 2)
        for _ in range(request.num_inference_steps):
            model.pipe.unet(**inputs)


def best_row_ms(model: LoadedModel, request: RunRequest) -> tuple[float, int]:
    """The least time per UNet row over several batch sizes, and the batch size that had it."""
    import torch

    found = []
    with torch.no_grad():
        for rows in (1, 2, 4, 8, 16, 32, 64):
            inputs = unet_inputs(model, request, rows)
            times = []
            for _ in range(5):
                start = time.perf_counter()
                model.pipe.unet(**inputs)
                if model.device.startswith("cuda"):
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            found.append((statistics.median(times) * 1000 / rows, rows))
            if sum(times) > 20:
                break
    return min(found)


def rows_to_compute(model: LoadedModel, cells: list[RunRequest]) -> int:
    """The UNet rows of a shared run, counted."""
    seen: list[int] = []
    hook = model.pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        make_pictures(
            model, cells, lambda request: {}, lambda number, result: None)
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
    """Random weights of the shapes of Stable Diffusion 1.5."""
    from diffusers import StableDiffusionPipeline

    return _random(registry, StableDiffusionPipeline, "SD 1.5's shapes", 512, {
        "unet": unet(sample_size=64, cross_attention_dim=768),
        "text_encoder": text_encoder("CLIPTextModel", 768, 12, 12),
    })  # fmt: skip


def stable_diffusion_xl(registry: Registry) -> LoadedModel:
    """Random weights of the shapes of Stable Diffusion XL."""
    from diffusers import StableDiffusionXLPipeline

    return _random(registry, StableDiffusionXLPipeline, "SDXL's shapes", 1024, {
        "unet": unet(
            sample_size=128, cross_attention_dim=2048, block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20),
            use_linear_projection=True, addition_embed_type="text_time",
            addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816),
        "text_encoder": text_encoder("CLIPTextModel", 768, 12, 12),
        "text_encoder_2": text_encoder("CLIPTextModelWithProjection", 1280, 32, 20),
    })  # fmt: skip


def unet(**config: Any) -> UNet2DConditionModel:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**config)  # the class's own defaults are SD 1's


def text_encoder(class_name: str, width: int, layers: int, heads: int) -> CLIPTextModel:
    import transformers

    return getattr(transformers, class_name)(transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=heads, projection_dim=width))


def _random(
    registry: Registry, cls: type, name: str, side: int, parts: dict[str, Any]
) -> LoadedModel:
    """A pipeline of these parts under the bundled model's words, without its weights."""
    from diffusers import AutoencoderKL

    with registry.borrow("postcards") as (small, _):
        tokenizer = copy.deepcopy(small.pipe.tokenizer)
        tokenizer.model_max_length = 77
        parts |= {"tokenizer": tokenizer, "scheduler": small.pipe.scheduler}
        parts |= {"tokenizer_2": tokenizer} if "text_encoder_2" in parts else {
            "safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        pipe = cls(vae=vae, **parts).to(small.pipe.unet.dtype)
        place(pipe, registry.device, "device")
        side = CPU_SIDE if registry.device == "cpu" else side
        info = dataclasses.replace(
            small.info, model_id=name, pipeline_class=cls.__name__, height=side, width=side,
            task_classes=task_classes(cls.__name__))
        return dataclasses.replace(small, info=info, pipe=pipe, views={}, warmed=set(),
                                   size_bytes=weight_bytes(pipe))


LARGE = {"sd15": (stable_diffusion_15, 7), "sdxl": (stable_diffusion_xl, 19)}  # GB in float32


if __name__ == "__main__":
    main()

"""`python -m pipelines.bench`: the engine against plain diffusers, as ratios from one run.

The bundled model: one picture, a grid of schedulers and guidance scales, one of in-painting and
one of image-to-image, and the first two beside a busy process. Then random weights of the shapes of
SD 1.5 and SDXL, and of the width of SD 3 and Flux with few layers; on the CPU at 256 px and with as
many steps as `--seconds` allow. Variants are interleaved and repeated, medians are compared.
Nothing is logged. `--output` keeps what was printed (docs/bench.md).

`python -m pipelines.bench log`: see log.py.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from pipelines.bench.limit import least_seconds
from pipelines.bench.log import bench_log
from pipelines.bench.shapes import LARGE
from pipelines.cli.output import Outputs, write
from pipelines.comparison import Comparison
from pipelines.errors import RequestError
from pipelines.hardware import environment, free_memory_bytes
from pipelines.making import make_picture, make_pictures
from pipelines.models.loaded import LoadedModel
from pipelines.models.placement import free_memory
from pipelines.models.registry import Registry
from pipelines.painting.call import call_arguments, run_scheduler, set_scheduler
from pipelines.painting.resolve import fit, resolve
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

AXES = ("scheduler=ddim,euler,dpmpp_2m,unipc,heun,euler_a", "guidance_scale=1,3,5,7.5,12")
PICTURE_AXES = ("strength=0.4,0.7,1", "guidance_scale=1,3,5,9", "seed=0,1")
SMALL_AXES = ("num_inference_steps={0},{1}", "guidance_scale=1,5,12")
PROMPT = "a red car on a road at night"
# Single pictures, which differ by a few hundredths, are repeated more often than grids.
SINGLE_SECONDS, MOST_TURNS = 20, 50
BUSY = "while True: pass"
_printed: list[str] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=["postcards", *LARGE],
                        default=["postcards", *LARGE])
    parser.add_argument("--repeats", type=int, default=3, help="turns of the postcards grids")
    parser.add_argument("--num-inference-steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=300,
                        help="what a large model's grid may take, about (default 300)")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    try:
        Outputs(*([("output", options.output)] if options.output else []))
    except RequestError as error:
        parser.error(str(error))
    registry = Registry()
    machine = environment(registry.device)
    say(", ".join(f"{name} {machine[name]}" for name in (
        "device_name", "torch_threads", "torch", "diffusers", "transformers")))
    if "postcards" in options.models:
        with registry.borrow("postcards") as (model, _):
            bench_postcards(model, options.num_inference_steps, options.repeats)
    for name, (build, gigabytes) in LARGE.items():
        if name not in options.models:
            continue
        free = free_memory_bytes(registry.device) / 1e9
        if free < gigabytes:
            say(f"\n{name}: left out, it needs {gigabytes} GB of memory and {free:.1f} GB are free")
            continue
        bench_large(build(registry), options.num_inference_steps, options.seconds)
        free_memory(registry.device)
    if options.output:
        command = " ".join(["python -m pipelines.bench", *sys.argv[1:]])
        text = "\n".join(_printed)
        write(options.output, (
            f"# Benchmark\n\n`{command}`, {datetime.date.today()}. Ratios of one run; the seconds "
            f"depend on the machine.\n\n```\n{text}\n```\n").encode())


def say(text: str) -> None:
    print(text, flush=True)
    _printed.append(text)


def bench_postcards(model: LoadedModel, steps: int, repeats: int) -> None:
    """The bundled model: a picture and grids, quiet and beside a busy process."""
    base = RunRequest(prompt=PROMPT, num_inference_steps=steps)
    cells = requests_of(model, base, AXES)
    single = next(r for r in cells if r.scheduler == "ddim" and r.guidance_scale == 5)
    heading(model, base, AXES, cells)
    notebook = untouched(model, "text-to-image")
    for _ in range(2):
        start = time.perf_counter()
        plain(model, notebook, single)
    turns = max(repeats, min(MOST_TURNS, int(SINGLE_SECONDS / (time.perf_counter() - start))))
    picture = compare(turns, {
        "pipe()": lambda: plain(model, notebook, single),
        "engine, one picture": lambda: make_picture(model, single),
    })
    table(picture)
    grid = bench_grid(model, cells, {}, repeats, one_by_one=True)
    with busy_process():
        beside = compare(min(turns, 10), {
            "engine, one picture": lambda: make_picture(model, single)})
        beside |= compare(repeats, {"engine, side by side": lambda: together(model, cells, {})})
    say("beside a busy process:")
    for name, seconds in beside.items():
        quiet = {**picture, **grid}[name]
        say(f"  {name:24s} {seconds:8.3f} s   {seconds / quiet:5.2f} of the quiet time")

    images = {"image": make_picture(model, single).image, "mask_image": half_masked(single)}
    for task in ("inpainting", "image-to-image"):
        names = ("image", "mask_image") if task == "inpainting" else ("image",)
        start = base.changed(task=task, **{name: "0" * 64 for name in names})
        cells = requests_of(model, start, PICTURE_AXES)
        heading(model, start, PICTURE_AXES, cells)
        bench_grid(model, cells, {name: images[name] for name in names}, repeats)


def bench_large(model: LoadedModel, most_steps: int, seconds: float) -> None:
    """Random weights of a large model: as many steps as are done in about `seconds`."""
    base = RunRequest(model_id=model.info.model_id, prompt=PROMPT, num_inference_steps=2)
    probe = resolve(base.changed(guidance_scale=5), model.info)
    make_picture(model, probe)
    start = time.perf_counter()
    make_picture(model, probe)
    step_seconds = (time.perf_counter() - start) / 2
    # Three variants of a turn and the first, which is thrown away: of 6 cells each.
    steps = max(2, min(most_steps, int(seconds / (4 * 6 * step_seconds))))
    axes = [axis.format(steps, steps // 2) for axis in SMALL_AXES]
    cells = requests_of(model, base, axes)
    heading(model, base, axes, cells)
    bench_grid(model, cells, {}, 1)


def requests_of(model: LoadedModel, base: RunRequest, axes: Sequence[str]) -> list[RunRequest]:
    size = (model.info.width, model.info.height)
    return [resolve(cell.request, model.info, size) for cell in Comparison.parse(base, axes).cells]


def heading(
    model: LoadedModel, base: RunRequest, axes: Sequence[str], cells: Sequence[RunRequest]
) -> None:
    say(f"\n{model.info.model_id}, {base.task}, {cells[0].width or model.info.width} x "
        f"{cells[0].height or model.info.height} px, "
        f"{max(cell.num_inference_steps for cell in cells)} steps, {len(cells)} cells: "
        f"{'; '.join(axes)}")


def bench_grid(
    model: LoadedModel, cells: Sequence[RunRequest], images: dict[str, Image.Image], repeats: int,
    one_by_one: bool = False,
) -> dict[str, float]:
    """A grid by one plain call per cell and side by side, and the least time it could take."""
    notebook = untouched(model, cells[0].task)
    variants = {
        "pipe() per cell": lambda: [plain(model, notebook, cell, images) for cell in cells],
        "engine, side by side": lambda: together(model, cells, images),
    }
    if one_by_one:
        variants["engine, one by one"] = lambda: [make_picture(model, cell, images)
                                                  for cell in cells]
    grid = compare(repeats, variants)
    table(grid)
    limit, told = least_seconds(model, lambda: together(model, cells, images))
    say(f"limit: {told} = {limit:.2f} s; side by side is "
        f"{grid['engine, side by side'] / limit:.2f} times that")
    return grid


def together(
    model: LoadedModel, cells: Sequence[RunRequest], images: dict[str, Image.Image]
) -> None:
    def ended(_number: int, result: Any) -> None:
        if isinstance(result, Exception):
            raise result

    make_pictures(model, cells, lambda request: images, ended)


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


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Another program that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def untouched(model: LoadedModel, task: str) -> DiffusionPipeline:
    """A task's pipeline as diffusers loads it: weights that the registry laid out anew are copied
    back to their usual order, the others are shared."""
    import torch

    def part(module: Any) -> Any:
        if not isinstance(module, torch.nn.Module):
            return module
        same = {id(p): p for p in module.parameters() if p.is_contiguous()}
        return copy.deepcopy(module, same).to(memory_format=torch.contiguous_format)

    pipe = model.view(task)
    pipe = type(pipe)(**{name: part(value) for name, value in pipe.components.items()})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def plain(
    model: LoadedModel, pipe: DiffusionPipeline, request: RunRequest,
    images: dict[str, Image.Image] | None = None,
) -> Any:
    """What a notebook does: a fresh scheduler and one call of the pipeline."""
    pipe = copy.copy(pipe)
    set_scheduler(pipe, run_scheduler(model, request))
    images = fit(request, images) if images and request.task == "image-to-image" else images or {}
    if request.task == "inpainting":
        request = request.changed(width=model.info.width, height=model.info.height)
    return pipe(**call_arguments(pipe, model.info, request, images))


def half_masked(request: RunRequest) -> Image.Image:
    mask = Image.new("L", (request.width, request.height))
    mask.paste(255, (request.width // 4, request.height // 4, request.width, request.height))
    return mask


if __name__ == "__main__":
    if sys.argv[1:2] == ["log"]:
        bench_log(sys.argv[2:])
    else:
        main()

"""The command line: the same engine and the same log as the dashboard."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from pipelines.axes import label, parse_option
from pipelines.chain import default_strength, parse_stage
from pipelines.comparison import Comparison
from pipelines.engine import Engine, new_comparison_id
from pipelines.errors import Cancelled, PipelineError, RequestError, StorageError
from pipelines.hub.client import Hub
from pipelines.hub.folders import offered_models
from pipelines.hub_cli import app as hub_app
from pipelines.inpainting.pictures_in import open_mask, open_rgb
from pipelines.measurement import CONVERGED, reference_cells
from pipelines.request import PICTURES, RunRequest
from pipelines.run_log import ComparisonRow, Distance, Run
from pipelines.schedulers import CATALOGUE
from pipelines.sheet import draw as sheet
from pipelines.sheet.page import html_page

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
app.add_typer(hub_app, name="hub")
UsageError = typer.BadParameter.__base__  # typer exports only its child


class Status(StrEnum):
    ok = "ok"
    failed = "failed"
    cancelled = "cancelled"


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


DEFAULTS = RunRequest()
Prompt = Annotated[str | None, typer.Argument(help="What the picture shows; none where the model "
                                              "paints without a prompt.")]
ModelId = Annotated[str, typer.Option(help="'postcards', a diffusers folder, a .safetensors "
                                           "checkpoint, or a cached Hub id, with "
                                           "@REVISION:VARIANT behind it or not.")]
TaskName = Annotated[str | None, typer.Option("--task", help="text-to-image, image-to-image, "
                                              "inpainting or unconditional; else as it follows "
                                              "from the pictures and the model.")]
Dtype = Annotated[str | None, typer.Option(help="float32, float16 or bfloat16; the device's own.")]
Policy = Annotated[str, typer.Option(help="Where weights lie between uses: auto, device, "
                                          "model-offload, group-offload, sequential-offload.")]
Quantization = Annotated[str | None, typer.Option(help="int8 (torchao) or int4 (bitsandbytes).")]
LoraOption = Annotated[list[str] | None, typer.Option("--lora", metavar="PATH[=WEIGHT]",
                                                      help="LoRA adapter; may be repeated.")]
Attention = Annotated[str, typer.Option(metavar="NAME", help="How attention is computed: native, "
                                        "_native_math, _native_flash, _native_efficient, "
                                        "_native_cudnn, eager, sliced, flash, sage, xformers; what "
                                        "goes with model and device.")]
CacheHook = Annotated[str, typer.Option(metavar="NAME", help="A caching hook of diffusers: none, "
                                        "pyramid_attention_broadcast, first_block_cache, "
                                        "taylorseer_cache, faster_cache, mag_cache; what goes with "
                                        "the model.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile the denoiser with torch.compile; "
                                       "a minute or more for each new shape, in the warm-up.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub model.")]
Variant = Annotated[str | None, typer.Option(help="Weights variant, such as fp16.")]
Negative = Annotated[str, typer.Option(help="What the picture should not show.")]
Scheduler = Annotated[str, typer.Option(help="A key of `schedulers`, or the model's default.")]
Option = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")]
Steps = Annotated[str | None, typer.Option(metavar="INTEGER", help="Denoising steps; the model's "
                                           "own.")]
Guidance = Annotated[str | None, typer.Option(metavar="FLOAT", help="Classifier-free guidance, 1: "
                                              "off; the model's own.")]
Rescale = Annotated[str, typer.Option(metavar="FLOAT", help="Guidance rescale, 0 to 1.")]
Eta = Annotated[str, typer.Option(metavar="FLOAT", help="DDIM's eta, 0 to 1.")]
Seed = Annotated[str, typer.Option(metavar="INTEGER", help="Seed of the initial noise.")]
Side = Annotated[str | None, typer.Option(metavar="INTEGER", help="Pixels; the model's own.")]
Picture = Annotated[Path | None, typer.Option(help="Input picture: image-to-image.")]
Mask = Annotated[Path | None, typer.Option(help="Mask picture, white is repainted: in-painting.")]
Crop = Annotated[str | None, typer.Option(metavar="INTEGER", help="In-painting: only the masked "
                                          "part, with that many pixels around it.")]
Feather = Annotated[str, typer.Option(metavar="INTEGER", help="In-painting: pixels of soft rim.")]
Content = Annotated[str, typer.Option(help="In-painting starts from the 'original' under the mask, "
                                           "or a 'fill' from its surroundings.")]
Soft = Annotated[bool, typer.Option("--differential", help="Repaint greys of the mask by degrees.")]
Strength = Annotated[str | None, typer.Option(metavar="FLOAT", help="Share of the steps to run.")]
Control = Annotated[Path | None, typer.Option(help="Edges, depth or pose that a ControlNet or "
                                              "adapter follows.")]
ControlMode = Annotated[str | None, typer.Option(metavar="INTEGER", help="Kind of the control "
                                                 "image, for union ControlNets.")]
ClassLabel = Annotated[str | None, typer.Option(metavar="INTEGER", help="Class to paint, for "
                                                "class-conditional models.")]
PriorSteps = Annotated[str | None, typer.Option(metavar="INTEGER", help="Steps of the first stage "
                                                "of two; the model's own.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def request_options(command: Callable) -> Callable:
    """Give a command the request's fields as options; it gets one RunRequest factory instead."""
    import inspect

    def build(
        prompt: Prompt = None,
        model_id: ModelId = DEFAULTS.model_id,
        revision: Revision = None,
        variant: Variant = None,
        torch_dtype: Dtype = None,
        memory_policy: Policy = DEFAULTS.memory_policy,
        quantization: Quantization = None,
        loras: LoraOption = None,
        attention_backend: Attention = DEFAULTS.attention_backend,
        cache: CacheHook = DEFAULTS.cache,
        compile: Compile = False,
        task: TaskName = None,
        negative_prompt: Negative = "",
        scheduler: Scheduler = DEFAULTS.scheduler,
        scheduler_option: Option = None,
        num_inference_steps: Steps = None,
        guidance_scale: Guidance = None,
        guidance_rescale: Rescale = "0",
        eta: Eta = "0",
        seed: Seed = "0",
        height: Side = None,
        width: Side = None,
        image: Picture = None,
        mask_image: Mask = None,
        strength: Strength = None,
        control_image: Control = None,
        control_mode: ControlMode = None,
        class_label: ClassLabel = None,
        prior_num_inference_steps: PriorSteps = None,
        padding_mask_crop: Crop = None,
        mask_feather: Feather = "0",
        masked_content: Content = DEFAULTS.masked_content,
        differential: Soft = False,
    ) -> None: ...

    own = inspect.signature(command, eval_str=True).parameters
    shared = inspect.signature(build, eval_str=True).parameters
    shared = {name: p for name, p in shared.items() if name not in own}

    def wrapped(**values: Any) -> None:
        fields = {name: values.pop(name) for name in shared}
        command(fields, **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    parameters = [*shared.values(), *(p for name, p in own.items() if name != "fields")]
    parameters.sort(key=lambda p: p.name != "image" or "image" in shared)  # an argument goes first
    wrapped.__signature__ = inspect.Signature(
        [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    )
    return wrapped


def make_request(engine: Engine, fields: dict[str, Any]) -> RunRequest:
    """A request from the options; pictures go into the store, the task follows from them."""
    values = {k: v for k, v in fields.items() if v is not None and k != "scheduler_option"}
    options = [_option(text) for text in fields["scheduler_option"] or []]
    values["scheduler_options"] = dict(options)
    for name in PICTURES:
        if path := values.get(name):
            values[name] = engine.pictures.put(_open_picture(path, name))
    info = engine.registry.describe(*(values.get(k) for k in ("model_id", "revision", "variant")))
    values.setdefault("task", info.task_for("image" in values, "mask_image" in values))
    values.setdefault("num_inference_steps", info.num_inference_steps)
    values.setdefault("guidance_scale", info.guidance_scale)
    if "image" in values:
        values.setdefault("strength", default_strength(info))
    elif "strength" in values:
        raise RequestError("strength needs --image: without one all steps run")
    takes_prompt = info.takes(values["task"], "prompt")
    if takes_prompt and "prompt" not in values:
        raise RequestError(f"prompt: {info.model_id} needs one, such as \"a red car\"")
    if values.get("prompt") and not takes_prompt:
        raise RequestError(f"prompt: received {values['prompt']!r}, {info.model_id} "
                           f"({info.pipeline_class}) paints without one")
    return RunRequest(**values)


def _option(text: str) -> tuple[str, Any]:
    """'use_karras_sigmas=true' -> name and value, numbers and booleans as such."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise RequestError(f"scheduler_option: received {text!r}, accepted NAME=VALUE")
    return name, parse_option(value)


def _open_picture(path: Path, name: str) -> Any:
    return open_mask(path, name) if name == "mask_image" else open_rgb(path, name)


@app.command()
@request_options
def generate(
    fields: dict,
    output: Annotated[Path, typer.Option("-o", "--output", help="PNG to write.")] = Path("out.png"),
    then: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUE,...", help="A further stage that starts from the picture, such as "
        "model_id=NAME,strength=0.6; may be repeated. Earlier pictures get a number.")] = None,
    as_json: Json = False,
) -> None:
    """Make one picture, or a chain of them."""
    _check_writable(output, ".png")
    engine = Engine()
    request = make_request(engine, fields)
    stages = [parse_stage(text) for text in then or []]
    with _Interrupt() as interrupt:
        engine.check(request)
        interrupt.check()
    with _Interrupt() as interrupt, _progress(1, "steps") as bar:

        def on_step(step: Any) -> None:
            interrupt.check()
            if step.index == 1:
                bar.reset(step.total)
            bar.update()

        runs = engine.chain(request, stages, on_step)
    paths = [*(output.with_stem(f"{output.stem}-{number}") for number in range(1, len(stages) + 1)),
             output]
    for run, path in zip(runs, paths, strict=False):
        if run.status == "ok":
            picture = engine.pictures.get(run.image_sha256)
            sheet.save_png(picture, path, {"requests": [run.request]})
            if not as_json:
                print(f"{path}: {run.total_ms / 1000:.2f} s, {run.nfe} function evaluations, "
                      f"initial noise {run.noise_sha256[:12] if run.noise_sha256 else 'unknown'}")
    if as_json:
        records = [sheet.cell_record({}, run, engine.pictures) for run in runs]
        _print_json({**records[-1], "stages": records} if stages else records[0])
    _exit_for(runs[-1:])  # a stage that did not end well is the last


@app.command()
@request_options
def compare(
    fields: dict,
    axis: Annotated[list[str] | None, typer.Option(
        metavar="NAME=VALUES", help="A field and its values: 1,3,7 or 1..10 or 1..10:2 or "
        "0.1..0.9/5 or 1,2,..,9; texts are separated by ||; skip: leaves a value out; "
        "A+B=1+x,2+y links fields. Rows, then columns, then one sheet per value.")] = None,
    skip: Annotated[list[str] | None, typer.Option(
        metavar="RULE", help="Leave cells out, such as scheduler=heun,num_inference_steps>20; may "
        "be repeated.")] = None,
    num_images_per_prompt: Annotated[int, typer.Option(
        min=1, help="Pictures per cell: as many seeds, from --seed on.")] = 1,
    resume: Annotated[str | None, typer.Option(
        metavar="ID", help="Go on with a comparison of the log.")] = None,
    fresh: Annotated[bool, typer.Option(
        "--fresh", help="Make every cell, also those that the log holds already.")] = False,
    recipe: Annotated[Path | None, typer.Option(
        help="Make a sheet again: a recipe, or a PNG or HTML page that carries one.")] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="Labelled PNG sheet.")]
    = Path("sheet.png"),
    csv: Annotated[Path | None, typer.Option(help="A row per cell, as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(
        help="One page with pictures, steps and viewer; it needs no network.")] = None,
    shared: Annotated[bool, typer.Option(
        help="Cells share UNet calls where the pipeline allows it: faster, the same pictures, "
        "shared times.")] = True,
    reference: Annotated[str | None, typer.Option(
        metavar="converged|CELL", help="Measure each cell's distance to the converged picture, or "
        "to a cell such as scheduler=ddim,num_inference_steps=50.")] = None,
    measure: Annotated[int, typer.Option(
        metavar="N", min=0, help="Time the cells: each apart, N times, in turns.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a sheet of pictures from one initial noise."""
    _check_writable(output, ".png")
    for path in (csv, html):
        if path:
            _check_writable(path)
    engine = Engine()
    if resume:
        comparison, row = _logged(engine, resume, axis, fields)
        reference = reference or row.reference
    elif recipe:
        if axis or fields["prompt"]:
            raise RequestError("recipe: holds the prompt and the axes; give neither beside it")
        comparison = sheet.read_recipe(recipe)
    elif not axis:
        raise RequestError("axis: received none, accepted --axis NAME=VALUES such as "
                           "--axis guidance_scale=1,3,7, or --resume ID, or --recipe FILE")
    else:
        request = make_request(engine, fields)
        if num_images_per_prompt > 1:
            axis = [*axis, f"seed={request.seed}..{request.seed + num_images_per_prompt - 1}"]
        comparison = Comparison.parse(request, axis, skip or ())
    if reference and reference != CONVERGED:
        reference_cells(comparison, reference)
    cells = comparison.cells
    wanted = [number for number, cell in enumerate(cells) if not cell.left_out]
    comparison_id = resume or new_comparison_id()
    with _Interrupt() as interrupt:
        for number in wanted:
            engine.check(cells[number].request)
        interrupt.check()
    distances = [None] * len(cells)
    with _Interrupt() as interrupt:
        with _progress(len(wanted), "cells") as bar:
            runs = engine.compare(
                comparison,
                lambda _number, _step: interrupt.check(),
                lambda _number, _run: bar.update(),
                comparison_id,
                shared,
                reference,
                fresh,
            )
        if reference and not interrupt.seen:
            distances = _measure(engine, comparison, runs, reference, interrupt)
        if measure and not interrupt.seen:
            _measure_timings(engine, runs, measure, interrupt)
    timings = engine.timings(runs)
    sheets = sheet.draw(comparison, runs, engine.pictures)
    paths = _sheet_paths(comparison, output)
    for picture, path in zip(sheets, paths, strict=True):
        sheet.save_png(picture, path, sheet.recipe(comparison, runs))
    table = sheet.cells_table(comparison, runs, engine.pictures, distances, timings)
    if csv:
        _write(csv, sheet.to_csv(table))
    every = [sheet.cell_record(cell.axes, *of_cell) for cell, *of_cell in zip(
        cells, runs, itertools.repeat(engine.pictures), distances, timings)]
    if html:
        _write(html, html_page(comparison, runs, engine.pictures, every, table))
    records = [every[number] for number in wanted]
    if as_json:
        _print_json({"comparison_id": comparison_id, "reference": reference, "sheet": str(paths[0]),
                     "sheets": [str(path) for path in paths], "cells": records})
    else:
        done = sum(record["status"] == "ok" for record in records)
        reused = sum(record.get("reused", False) for record in records)
        print(f"{', '.join(map(str, paths))}: {done} of {len(wanted)} cells"
              f"{f' ({reused} from the log)' if reused else ''}, comparison {comparison_id}")
        for record in records:
            if record["error"]:
                print(f"  {record['axes']}: {record['error']}", file=sys.stderr)
    if interrupt.seen:
        raise typer.Exit(130)
    _exit_for([runs[n] for n in wanted])


def _logged(
    engine: Engine, comparison_id: str, axis: list[str] | None, fields: dict[str, Any]
) -> tuple[Comparison, ComparisonRow]:
    """A comparison of the log; RequestError where there is none or other axes are given too."""
    if axis or fields.get("prompt"):
        raise RequestError("resume: takes prompt and axes from the log; give neither")
    row = engine.run_log.comparison(comparison_id)
    if row is None:
        recent = [row.id for row in engine.run_log.comparisons(3)]
        raise RequestError(f"resume: received {comparison_id!r}, accepted the id of a comparison "
                           f"in the log, such as {', '.join(recent) or '(there is none yet)'}")
    return Comparison.from_row(row), row


def _measure(
    engine: Engine,
    comparison: Comparison,
    runs: Sequence[Run | None],
    reference: str,
    interrupt: _Interrupt,
) -> list[Distance | None]:
    """Distances of the cells; after Ctrl-C those that were measured by then."""
    with _progress(0, "reference steps") as bar:

        def on_step(step: Any) -> None:
            interrupt.check()
            bar.total = max(bar.total or 0, bar.n - step.index + 1 + step.total)
            bar.update()

        try:
            return engine.measure(comparison, runs, reference, on_step)
        except Cancelled:
            return engine.distances(comparison, runs, reference)


def _measure_timings(
    engine: Engine, runs: Sequence[Run | None], repeats: int, interrupt: _Interrupt
) -> None:
    """Time the cells; Ctrl-C keeps what was measured."""
    made = {run.source_id for run in runs if run and run.status == "ok"}
    with _progress(repeats * len(made), "timings") as bar, contextlib.suppress(Cancelled):
        engine.measure_timings(runs, repeats, lambda _step: interrupt.check(),
                               lambda _done: bar.update())


@app.command()
def runs(
    format: Annotated[Format, typer.Option(help="How to print them.")] = Format.table,
    as_json: Json = False,
    text: Annotated[str, typer.Option(help="Only runs whose prompts contain this.")] = "",
    model_id: Annotated[str | None, typer.Option()] = None,
    scheduler: Annotated[str | None, typer.Option()] = None,
    status: Annotated[Status | None, typer.Option(help="How they ended.")] = None,
    since: Annotated[str | None, typer.Option(help="ISO date, included.")] = None,
    until: Annotated[str | None, typer.Option(help="ISO date, included.")] = None,
    comparison_id: Annotated[str | None, typer.Option()] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest N.")] = None,
) -> None:
    """Print the run log, the newest first."""
    for name, day in (("since", since), ("until", until)):
        _check_day(name, day)
    filters = {"text": text, "model_id": model_id, "scheduler": scheduler, "status": status,
               "since": since, "until": until, "comparison_id": comparison_id}
    log = Engine().run_log
    rows = log.runs(**filters, limit=limit)
    if as_json or format is Format.json:
        _print_json([run.as_dict() for run in rows])
    elif format is Format.csv:
        print(sheet.to_csv([run.as_dict() for run in rows], Run.__table__.columns.keys()), end="")
    elif not rows and log.count():
        print("No run fits these filters.")
    elif not rows:
        print("No runs yet. Make one: python -m pipelines generate \"a red car\" -o out.png")
    else:
        _print_table(
            ["id", "datetime_utc", "status", "scheduler", "steps", "guidance", "seed", "nfe",
             "total_ms", "prompt"],
            [[run.id, run.datetime_utc[:19], run.status, run.scheduler, run.num_inference_steps,
              f"{run.guidance_scale:g}", run.seed, run.nfe,
              None if run.total_ms is None else round(run.total_ms), run.prompt] for run in rows],
        )  # fmt: skip


@app.command()
def models(
    check: Annotated[Path | None, typer.Option(
        metavar="DIR", help="Open each pipeline folder below DIR and run its tasks.")] = None,
    as_json: Json = False,
) -> None:
    """Print the models that are here, or check a folder of pipelines."""
    if check:
        _check_models(check, as_json)
        return
    engine, infos = Engine(), []
    for model_id in offered_models(engine.home, Hub().cache_dir):
        try:
            infos.append(engine.registry.describe(model_id))
        except PipelineError as error:
            print(f"note: {error}", file=sys.stderr)
    records = [
        {"model_id": i.model_id, "source": i.source, "pipeline_class": i.pipeline_class,
         "height": i.height, "width": i.width, "size_bytes": i.size_bytes,
         "default_scheduler": i.default_scheduler, "prediction_type": i.prediction_type,
         "folder": str(i.folder)} for i in infos
    ]  # fmt: skip
    if as_json:
        _print_json(records)
        return
    _print_table(
        ["model_id", "source", "pipeline", "size", "weights", "default scheduler"],
        [[i.model_id, i.source, i.pipeline_class, f"{i.width} x {i.height} px",
          f"{i.size_bytes / 1e6:.1f} MB", i.default_scheduler] for i in infos],
    )  # fmt: skip


@app.command()
def schedulers(as_json: Json = False) -> None:
    """Print the scheduler catalogue."""
    if as_json:
        _print_json([asdict(info) for info in CATALOGUE])
        return
    _print_table(
        ["key", "name", "family", "order", "stochastic", "NFE/step", "paper"],
        [[i.key, i.label, i.family, i.order, "yes" if i.stochastic else "no",
          i.evaluations_per_step, i.paper] for i in CATALOGUE],
    )  # fmt: skip


def _check_models(root: Path, as_json: bool) -> None:
    """Exit code 1 where a folder or a task fails, 2 where there is no folder to check."""
    from pipelines.check import check_folders, pipeline_folders

    count = len(pipeline_folders(root))
    if not count:
        raise RequestError(f"check: no model_index.json at or below {root}")
    checks = []
    with _progress(count, "folders") as bar:
        for outcome in check_folders(root):
            checks.append(outcome)
            bar.update()
    if as_json:
        _print_json([{**asdict(outcome), "ok": outcome.ok} for outcome in checks])
    else:
        _print_table(
            ["folder", "pipeline", "task", "result"],
            [[outcome.folder, outcome.pipeline_class, task, result] for outcome in checks
             for task, result in outcome.results.items() or [("", outcome.error or "no task")]],
        )  # fmt: skip
    if not all(outcome.ok for outcome in checks):
        raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends it with exit code 2 and one line."""
    try:
        arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = app(arguments, standalone_mode=False, prog_name="python -m pipelines")
    except UsageError as error:
        code = _complain(error.format_message())
    except PipelineError as error:
        code = _complain(str(error))
    except (typer.Abort, KeyboardInterrupt, Cancelled):
        code = 130
    sys.exit(code or 0)


def _complain(message: str) -> int:
    """One line, or where the place of a mistake is marked, the lines that mark it."""
    lines = message.splitlines()
    if not any(line.strip().strip("^") == "" for line in lines[1:]):
        lines = [" ".join(message.split())]
    print("\n  ".join([f"error: {lines[0]}", *lines[1:]]), file=sys.stderr)
    return 2


def _exit_for(runs: Sequence[Any]) -> None:
    """Exit code: 130 where the user stopped it, 1 where a run failed."""
    failed = [run for run in runs if run and run.status == "failed"]
    if any(run is None or run.status == "cancelled" for run in runs):
        raise typer.Exit(130)
    if failed:
        if len(runs) == 1:
            print(f"error: {failed[0].error}", file=sys.stderr)
        raise typer.Exit(1)


class _Interrupt:
    """Turns Ctrl-C and SIGTERM into a cancel between two steps; a second one ends the process."""

    def __enter__(self) -> _Interrupt:
        self.seen = False
        self._before = {number: signal.signal(number, self._note)
                        for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, *_: object) -> None:
        if self.seen:
            raise KeyboardInterrupt
        self.seen = True

    def check(self) -> None:
        if self.seen:
            raise Cancelled("stopped by the user")


def _progress(total: int, unit: str) -> tqdm:
    return tqdm(total=total, unit=f" {unit}", file=sys.stderr, dynamic_ncols=True)


def _check_day(name: str, day: str | None) -> None:
    try:
        datetime.date.fromisoformat(day or "2000-01-01")
    except ValueError:
        raise RequestError(f"{name}: received {day!r}, accepted a date: YYYY-MM-DD") from None


def _check_writable(path: Path, *suffixes: str) -> None:
    """Say so before the work, not after it."""
    if suffixes and path.suffix.lower() not in suffixes:
        raise RequestError(f"output: received {path}, accepted a name that ends in .png")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise RequestError(f"output: {path} cannot be written: {error}") from error
    if path.is_dir():
        raise RequestError(f"output: {path} is a folder; a file name is needed")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}") from error


def _sheet_paths(comparison: Comparison, output: Path) -> list[Path]:
    """One path, or one per value of the further axes: sheet-seed=1.png."""
    names = []
    for values in itertools.product(*(axis.values for axis in comparison.sheet_axes)):
        parts = [f"{axis.name}={label(axis.name, value)}"
                 for axis, value in zip(comparison.sheet_axes, values, strict=True)]
        names.append("".join(f"-{_file_name(part)}" for part in parts))
    if len(set(names)) < len(names):
        names = [f"{name}-{number}" for number, name in enumerate(names, 1)]
    return [output.with_name(f"{output.stem}{name}{output.suffix or '.png'}") for name in names]


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "=._+" else "-" for c in text)[:60]


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(head: list[str], rows: list[list[Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console(width=None if sys.stdout.isatty() else 200, markup=False, emoji=False,
            highlight=False).print(table)


from pipelines import inpaint_cli  # noqa: E402, F401  (its commands need what stands above)

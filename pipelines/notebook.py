"""Comparisons where a program or a notebook has the pipeline already; the engine, the log and the
viewer are those of the dashboard and the command line."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from pipelines import measuring
from pipelines.axes import Axis, make_axis
from pipelines.claims import waiting_text
from pipelines.comparison import Comparison
from pipelines.engine import Engine
from pipelines.errors import Cancelled, RequestError
from pipelines.grid import new_comparison_id
from pipelines.log_tables import Run
from pipelines.measuring import CONVERGED, reference_cells
from pipelines.new_request import new_request
from pipelines.references import made_here
from pipelines.sheet.cells import Results
from pipelines.sheet.draw import draw
from pipelines.sheet.exports import EXPORTS, recipe_of

if TYPE_CHECKING:
    import pandas
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

VIEWER_HEIGHT = 720  # pixels of a notebook's page


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """A comparison of the log. A notebook shows it as the sheet with its viewer."""

    engine: Engine
    comparison_id: str

    @property
    def results(self) -> Results:
        """What the log holds of it now: cells, runs, distances, timings."""
        return Results.of_log(self.engine, self.comparison_id)

    @property
    def comparison(self) -> Comparison:
        """The base request, the axes and the cells."""
        return self.results.comparison

    @property
    def runs(self) -> Sequence[Run | None]:
        """The run of each cell, in the order of `comparison.cells`; None where it was not made."""
        return self.results.runs

    @property
    def pictures(self) -> list[Image | None]:
        """The picture of each cell, None where there is none. Raises StorageError."""
        store = self.engine.pictures
        return [store.get(run.image_sha256) if run and run.image_sha256 else None
                for run in self.runs]

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each cell: its values on the axes, its measures, the columns of the log."""
        import pandas

        return pandas.DataFrame(self.results.rows)

    def sheet(self, number: int = 0) -> Image:
        """The labelled sheet as a picture; axes behind the second make several, counted from 0."""
        results = self.results
        sheets = draw(results.comparison, results.runs, results.pictures)
        if not 0 <= number < len(sheets):
            raise RequestError(f"number: received {number}, accepted 0 to {len(sheets) - 1}")
        return sheets[number]

    def to_html(self, path: str | Path | None = None) -> str:
        """The page with viewer, pictures and steps, which needs no network; also written to a file
        where `path` is given."""
        page = EXPORTS["html"].write(self.results)
        if path is not None:
            Path(path).write_bytes(page)
        return page.decode()

    def recipe(self) -> dict[str, Any]:
        """What makes the same sheet again, with models and versions: `contact-sheet compare
        --recipe` takes it as JSON."""
        return recipe_of(self.results)

    def measure(self, reference: str = CONVERGED, repeats: int = 0) -> ComparisonResult:
        """This comparison, with the distance of each cell to a reference in the log: 'converged',
        or a cell such as 'scheduler=ddim'. With `repeats` the cells are also timed, each apart and
        that many times. Raises RequestError for an unknown cell, or a model that cannot converge.
        """
        comparison, runs = self.comparison, self.runs
        if reference != CONVERGED:
            reference_cells(comparison, reference)
        self.engine.run_log.set_reference(self.comparison_id, reference)
        with _interruptible() as check, contextlib.suppress(Cancelled):
            with tqdm(unit=" reference steps") as bar:
                measuring.measure(self.engine, comparison, runs, reference,
                                  lambda _: bar.update(), check)
            if repeats:
                made = {run.source_id for run in made_here(runs)}
                with tqdm(total=repeats * len(made), unit=" timings") as bar:
                    measuring.measure_timings(self.engine, runs, repeats, lambda _: check(),
                                              lambda _: bar.update())
        return self

    def __repr__(self) -> str:
        runs = [run for cell, run in zip(self.comparison.cells, self.runs, strict=True)
                if not cell.left_out]
        made = sum(run is not None and run.status == "ok" for run in runs)
        reused = sum(run is not None and run.reused_from is not None for run in runs)
        return (f"<comparison {self.comparison_id}: {made} of {len(runs)} cells"
                f"{f' ({reused} from the log)' if reused else ''}>")

    def _repr_html_(self) -> str:
        page = escape(self.to_html(), quote=True)
        return (f'<iframe srcdoc="{page}" title="Contact sheet" style="width: 100%; '
                f'height: {VIEWER_HEIGHT}px; border: 0"></iframe>')


def compare(
    model: DiffusionPipeline | str | Sequence[DiffusionPipeline | str],
    prompt: str | Sequence[str] | None = None,
    *,
    skip: Sequence[str] = (),
    shared: bool = True,
    fresh: bool = False,
    home: str | Path | None = None,
    **fields: Any,
) -> ComparisonResult:
    """A comparison of what differs, each cell made and logged.

    `model` is a loaded diffusers pipeline, which is used as it is and unchanged afterwards, or a
    model id; `fields` are those of `RunRequest`. Several values make an axis (the first one rows,
    the second columns, each further one more sheets): a list, a tuple or a range. What is no name
    in Python is given as `**{"num_inference_steps+scheduler": [(10, "ddim"), (20, "euler")]}`.
    Pictures are paths or open pictures. `skip` are rules that leave cells out; `shared`, `fresh`:
    see `Engine.compare`; `home` is the data folder, by default the one of the dashboard.

    Cells that the log has, made of exactly the same, are taken from there. For a pipeline in memory
    this needs a hash of its weights, settings and classes: with more than 4 GiB of weights,
    adapters, hooks or offloading it is never done, and the notes of the runs say so.
    An interrupt keeps what was made by then. Raises RequestError, UnknownModelError or LoadError
    before the first cell; a cell that fails says why in its place.
    """
    models = list(model) if isinstance(model, list | tuple) else [model]
    home = Path(home).expanduser().absolute() if home else None
    engine, ids = _engine_for(models, home)
    given = {"model_id": ids if len(ids) > 1 else ids[0], "prompt": prompt} | fields
    comparison = _comparison(engine, given, skip)
    wanted = [cell for cell in comparison.cells if not cell.left_out]
    for cell in wanted:
        engine.check(cell.request)
    comparison_id = new_comparison_id()
    with _interruptible() as check, _own_state(), tqdm(total=len(wanted), unit=" cells") as bar:
        engine.compare(comparison, lambda _number, _step: check(), lambda _number, _run:
                       bar.update(), comparison_id, shared, fresh=fresh, check=check,
                       on_wait=lambda cells: bar.set_postfix_str(waiting_text(cells)))
    return ComparisonResult(engine, comparison_id)


def _engine_for(models: Sequence[Any], home: Path | None) -> tuple[Engine, list[str]]:
    """An engine that has these models, and their ids. Loaded models are kept from one comparison
    to the next; a pipeline that was handed over lives as long as the result."""
    pipes = [model for model in models if not isinstance(model, str)]
    if not pipes:
        return _shared_engine(home), list(models)
    if wrong := [pipe for pipe in pipes if not hasattr(pipe, "components")]:
        raise RequestError(f"model: received {type(wrong[0]).__name__}, accepted a diffusers "
                           "pipeline or a model id")
    engine = Engine(home, device=str(pipes[0].device))
    return engine, [model if isinstance(model, str) else engine.registry.hold(model)
                    for model in models]


@functools.lru_cache(4)
def _shared_engine(home: Path | None) -> Engine:
    return Engine(home)


def _comparison(
    engine: Engine, fields: dict[str, Any], skip: Sequence[str]
) -> Comparison:
    """Fields of several values as axes, the others as the base request."""
    several = {name: values for name, value in fields.items()
               if (values := _values(name, value)) is not None}
    base = {name: value for name, value in fields.items()
            if name not in several and value is not None}
    base |= {name: several[name][0] for name in ("model_id", "prompt") if name in several}
    request = new_request(engine, base)
    axes: list[Axis] = [make_axis(name, values, request) for name, values in several.items()]
    return Comparison(request, tuple(axes), tuple(skip))


def _values(name: str, value: Any) -> list[Any] | None:
    """The values of an axis; None for one value. Adapters are several, and one value."""
    values = list(value) if isinstance(value, list | tuple | range) else None
    if name == "loras" and values is not None and not any(
            isinstance(item, list | tuple) for item in values):
        return None
    return values


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """A check that raises Cancelled once the user has interrupted; a second interrupt acts as
    always. Only the main thread hears of one."""
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise Cancelled("stopped by the user")

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _own_state() -> Iterator[None]:
    """What the engine sets for the whole process is the program's own again afterwards: torch's
    random numbers and its number of threads."""
    from pipelines.models.opening import warm_libraries

    warm_libraries()
    import torch

    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)

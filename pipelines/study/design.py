"""A study: methods, prompts and seeds, and the comparisons whose cells are its pictures."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.axes import Axis, make_axis, parse_axis
from pipelines.comparison import MAX_CELLS, Comparison
from pipelines.errors import RequestError, first_line
from pipelines.log_tables import utc_now
from pipelines.measuring import CONVERGED
from pipelines.names import is_hosted
from pipelines.references import is_converged, reference_cells
from pipelines.request import RunRequest
from pipelines.run_log import RunLog
from pipelines.study.measures import DEFAULT, check_measures
from pipelines.study.prompts import Prompt
from pipelines.study.rows import StudyRow, study_row, study_rows

FEWEST_METHODS, MOST_METHODS = 2, 12
MOST_PROMPTS = 5000
BLOCK_CELLS = 48  # that are made before a study looks at its results again
NOT_METHODS = {"prompt", "seed"}  # what a study asks of all of its methods


def new_study_id() -> str:
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True)
class Study:
    """Every method (a combination of the axes' values) for every prompt and seed, from equal noise
    for each prompt and seed. `skip`: rules over the axes that leave methods out. `reference` and
    `measures`: see measuring.py and measures.py. Raises RequestError."""

    base: RunRequest
    axes: tuple[Axis, ...]
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    reference: str | None = CONVERGED
    measures: tuple[str, ...] = DEFAULT
    skip: tuple[str, ...] = ()
    stop_when_decided: bool = False
    id: str = field(default_factory=new_study_id)
    datetime_utc: str = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        check_measures(self.measures, self.reference)
        parts = [part for axis in self.axes for part in axis.parts]
        if both := sorted(NOT_METHODS.intersection(parts)):
            raise RequestError(f"methods: received {', '.join(both)} on an axis, accepted what "
                               "says how a picture is made: every method paints all prompts and "
                               "seeds")
        if not 0 < len(self.prompts) <= MOST_PROMPTS:
            raise RequestError(f"prompts: received {len(self.prompts)}, accepted 1 to "
                               f"{MOST_PROMPTS}")
        if not FEWEST_METHODS <= len(self.methods) <= MOST_METHODS:
            raise RequestError(f"methods: received {len(self.methods)}, accepted {FEWEST_METHODS} "
                               f"to {MOST_METHODS}")
        if self.reference and self.reference != CONVERGED:
            reference_cells(self.comparisons[0], self.reference)
        if hosted := [r.model_id for r in self.requests if is_hosted(r.model_id)]:
            raise RequestError(f"model_id: received {hosted[0]!r}; a study compares methods from "
                               "equal noise, and a provider's is unknown: accepted models that "
                               "run on this machine")
        make_axis("prompt", [prompt.text for prompt in self.prompts], self.base)  # none twice

    @functools.cached_property
    def _grid(self) -> Comparison:
        """The methods alone."""
        return Comparison(self.base.changed(prompt=self.prompts[0].text), self.axes, self.skip)

    @functools.cached_property
    def methods(self) -> tuple[str, ...]:
        """Their names, in the order of the axes."""
        names = {axis.name: axis for axis in self.axes}
        return tuple(
            " ".join(name_part(names[axis], value) for axis, value in cell.axes.items())
            for cell in self._grid.cells if not cell.left_out)

    @functools.cached_property
    def requests(self) -> tuple[RunRequest, ...]:
        """Of each method for the first prompt and the base's seed."""
        return tuple(cell.request for cell in self._grid.cells if not cell.left_out)

    @property
    def converged_requests(self) -> tuple[RunRequest, ...]:
        """The methods whose converged pictures are the reference, as `requests` has them."""
        if not self.reference or not is_converged(self.reference):
            return ()
        if self.reference == CONVERGED:
            return self.requests
        cells = self._grid.cells
        numbers = dict.fromkeys(reference_cells(self._grid, self.reference))
        return tuple(cells[number].request for number in numbers)

    @functools.cached_property
    def slices(self) -> tuple[range, ...]:
        """The numbers of the prompts of each comparison: a comparison has a largest size."""
        each = len(self._grid.cells) * len(self.seeds)
        if each > MAX_CELLS:
            raise RequestError(f"seeds: received {len(self.seeds)} for {len(self.methods)} "
                               f"methods, accepted up to {MAX_CELLS // len(self._grid.cells)}")
        size = MAX_CELLS // each
        return tuple(range(start, min(start + size, len(self.prompts)))
                     for start in range(0, len(self.prompts), size))

    @functools.cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Each has the methods' axes, then the seeds, then its prompts."""
        seeds = make_axis("seed", self.seeds, self.base)
        return tuple(
            Comparison(self.base, (*self.axes, seeds, make_axis(
                "prompt", [self.prompts[n].text for n in numbers], self.base)), self.skip)
            for numbers in self.slices)

    @property
    def comparison_ids(self) -> tuple[str, ...]:
        return tuple(self.id if not n else f"{self.id}-{n + 1}" for n in range(len(self.slices)))

    @functools.cached_property
    def places(self) -> tuple[tuple[tuple[int, int, int], ...], ...]:
        """For each comparison the (method, prompt, seed) numbers of each of its cells; method -1
        where a rule leaves it out."""
        kept = [cell.axes for cell in self._grid.cells if not cell.left_out]
        of_method = {tuple(axes.items()): n for n, axes in enumerate(kept)}
        of_prompt = {prompt.text: n for n, prompt in enumerate(self.prompts)}
        of_seed = {seed: n for n, seed in enumerate(self.seeds)}
        names = [name for name in self._grid.cells[0].axes]
        return tuple(
            tuple((of_method.get(tuple((name, cell.axes[name]) for name in names), -1),
                   of_prompt[cell.axes["prompt"]], of_seed[cell.axes["seed"]])
                  for cell in comparison.cells)
            for comparison in self.comparisons)

    def blocks(self) -> Iterator[tuple[int, list[int]]]:
        """The work in order: the number of a comparison, and of cells of it that are made together.
        All methods of a prompt are in one block, so that pairs are complete early."""
        size = max(1, -(-BLOCK_CELLS // (len(self.methods) * len(self.seeds))))
        for number, prompts in enumerate(self.slices):
            for start in range(prompts.start, prompts.stop, size):
                wanted = range(start, min(start + size, prompts.stop))
                yield number, [cell for cell, (method, prompt, _) in
                               enumerate(self.places[number]) if method >= 0 and prompt in wanted]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        count = len(self.methods)
        return [(a, b) for a in range(count) for b in range(a + 1, count)]

    def row(self) -> StudyRow:
        return StudyRow(
            id=self.id, datetime_utc=self.datetime_utc, base=self.base.model_dump(mode="json"),
            axes=[axis.as_dict() for axis in self.axes], skip=list(self.skip),
            prompts=[{"prompt": p.text, "category": p.category} for p in self.prompts],
            seeds=list(self.seeds), reference=self.reference, measures=list(self.measures),
            stop_when_decided=self.stop_when_decided)

    @classmethod
    def from_row(cls, row: StudyRow) -> Study:
        """As it stands in the log; RequestError where its row is damaged, or of a version that knew
        other fields or values."""
        if row.damage:
            raise RequestError(f"study {row.id}: {row.damage}")
        try:
            return cls(
                RunRequest(**row.base), tuple(map(Axis.from_dict, row.axes)),
                tuple(Prompt(p["prompt"], p["category"]) for p in row.prompts), tuple(row.seeds),
                row.reference, tuple(row.measures), tuple(row.skip), row.stop_when_decided,
                row.id, row.datetime_utc)
        except RequestError as error:
            raise RequestError(f"study {row.id}: {error}") from error
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise RequestError(f"study {row.id}: it makes no methods and prompts: "
                               f"{first_line(error)}") from error


def keep(run_log: RunLog, study: Study) -> None:
    """Put a study into the log, where it is not yet."""
    if study_row(run_log, study.id) is None:
        run_log.add(study.row())


def logged_study(run_log: RunLog, study_id: str) -> Study:
    """A study of the log; RequestError where there is none, or none that can be read."""
    row = study_row(run_log, study_id)
    if row is None:
        newest = ", ".join(row.id for row in study_rows(run_log, 3)) or "none yet"
        raise RequestError(f"study {study_id} is not in the log of this machine, which holds "
                           f"{newest}")
    return Study.from_row(row)


def parse_methods(texts: Sequence[str], base: RunRequest) -> tuple[Axis, ...]:
    """Axes from texts such as 'scheduler=ddim,dpmpp_2m'; RequestError."""
    if not texts:
        raise RequestError("methods: received none, accepted an axis such as "
                           "scheduler=ddim,dpmpp_2m,unipc")
    return tuple(parse_axis(text, base) for text in texts)


def name_part(axis: Axis, value: object) -> str:
    """A value as a part of a method's name; a bare number says what it is a number of."""
    text = axis.label(value)
    if axis.name == "num_inference_steps":
        return f"{text} steps"
    return text if axis.name == "scheduler" or "+" in axis.name else f"{axis.name} {text}"

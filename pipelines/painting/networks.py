"""A network of a loaded model, called with the rows of many cells at once.

Nothing here knows a class. At the first batched call of a kind (its shapes, dtypes and settings)
the first and the last cell's rows are also computed alone, on the user's own model and machine.
Where the two differ by more than TOLERANCE the rows depend on each other, and the network's calls
run one after the other from then on; the runs say so. The same holds for a network that fails with
a batch and works alone.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary

from pipelines.errors import Cancelled
from pipelines.hardware import cores, free_memory_bytes, memory_in_use_bytes, peak_memory_bytes
from pipelines.models.placement import free_memory
from pipelines.painting.rows import NotRows, Rows, join, largest_difference, tensor_bytes
from pipelines.painting.workers import Pace, Plan, compute, plans

# Largest difference between rows computed together and alone, as a share of the output's largest
# magnitude: some hundred roundings of each precision.
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 5e-2}
MAX_ROWS = 64  # of a call; more gain nothing
ROWS_A_PART = 32  # on the CPU: larger parts leave its caches
MEMORY_SHARE = 0.5  # of the free memory that a call may take
REMEMBERED_BYTES = 256 * 2**20


@dataclass(eq=False)
class Call:
    """A cell's call, waiting; `rows` None where it cannot be taken apart. `first`: the cell's first
    of this network."""

    cell: Any
    network: Network
    args: tuple
    kwargs: dict[str, Any]
    first: bool
    rows: Rows | None = None
    key: Any = None

    def __post_init__(self) -> None:
        try:
            self.rows = Rows.of_call(self.args, self.kwargs)
            self.key = (*self.rows.key(), *map(contents, self.rows.whole_tensors()))
            hash(self.key)
        except (NotRows, TypeError):
            self.rows, self.key = None, id(self)


@dataclass(frozen=True)
class Outcome:
    """What a call gave, or the exception that it raised; `share` of the time between marks."""

    value: Any
    spans: tuple[tuple[Any, Any], ...] = ()
    share: float = 1.0


class Memory:
    """Rows that were computed before, the oldest forgotten first."""

    def __init__(self) -> None:
        self._rows: OrderedDict[Any, Rows] = OrderedDict()
        self._bytes = 0

    def get(self, name: Any) -> Rows | None:
        return self._rows.get(name)

    def keep(self, name: Any, row: Rows) -> None:
        self._rows[name] = row
        self._bytes += _size(row)
        while self._bytes > REMEMBERED_BYTES:
            self._bytes -= _size(self._rows.popitem(last=False)[1])


@dataclass
class Network:
    """One network and what was learnt of it in this process.

    `name` is such as 'unet' or 'vae.decode'; `alone` says why its calls are not batched, '' where
    they are; `row_seconds` is the pace of its last batched call.
    """

    name: str
    owner: torch.nn.Module
    attribute: str
    denoises: bool
    device: str
    compute: Callable = field(init=False, repr=False)
    dtype: torch.dtype | None = field(init=False)
    alone: str = ""
    row_seconds: float | None = None
    _proved: set = field(default_factory=set, repr=False)
    _paces: dict[Any, Pace] = field(default_factory=dict, repr=False)
    _taken_apart: set = field(default_factory=set, repr=False)  # its parts gave what the whole did
    _whole: set = field(default_factory=set, repr=False)  # never in parts: it keeps a state
    _limits: dict[Any, int] = field(default_factory=dict, repr=False)
    _too_many: dict[Any, int] = field(default_factory=dict, repr=False)
    _row_bytes: dict[Any, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Take the call as it is now: hooks and adapters may have come since."""
        self.compute = getattr(self.owner, self.attribute)
        self.dtype = self._present_dtype()

    @property
    def recast(self) -> bool:
        """Whether a pipeline has changed its precision for the moment (XL's autoencoder)."""
        return self._present_dtype() != self.dtype

    @property
    def splits(self) -> bool:
        """Whether its parts may run in threads: transformers' models patch themselves while they
        run, to collect what their layers give."""
        from diffusers import ModelMixin

        return isinstance(self.owner, ModelMixin)

    @property
    def decodes(self) -> bool:
        return self.attribute == "decode"

    @property
    def remembers(self) -> bool:
        """Whether equal rows are worth looking for in every call: texts and input pictures are
        often equal, latents are after their first evaluation no more."""
        return not self.denoises and not self.decodes

    def run(
        self, calls: Sequence[Call], mark: Callable[[], Any], memory: Memory | None,
        check: Callable[[], None] | None = None,
    ) -> list[Outcome]:
        """The outcomes of calls with equal keys, computed as one batch where that is possible.

        `mark` tells the time, `check` may raise Cancelled; without a `memory` equal rows are not
        looked for.
        """
        if self.alone or calls[0].rows is None:
            return [self._run_alone(call, mark) for call in calls]
        proved = self._kind(calls) in self._proved
        try:
            return self._run_together(calls, mark, memory, check)
        except (NotRows, Cancelled) as reason:
            if isinstance(reason, Cancelled):
                raise
            self.alone = str(reason)
        except Exception as error:
            if is_out_of_memory(error):
                return [Outcome(error) for _ in calls]
            outcomes = [self._run_alone(call, mark) for call in calls]
            works = any(not isinstance(outcome.value, Exception) for outcome in outcomes)
            if works and not proved:
                self.alone = f"it fails with several rows ({first_line(error)})"
            return outcomes
        return [self._run_alone(call, mark) for call in calls]

    def _run_alone(self, call: Call, mark: Callable[[], Any]) -> Outcome:
        """A call as the pipeline made it."""
        start = mark()
        try:
            value = self.compute(*call.args, **call.kwargs)
        except Exception as error:
            value = error
        return Outcome(value, ((start, mark()),))

    def _run_together(
        self, calls: Sequence[Call], mark: Callable[[], Any], memory: Memory | None,
        check: Callable[[], None] | None,
    ) -> list[Outcome]:
        kind, batch = self._kind(calls), join([call.rows for call in calls])
        generators = calls[0].rows.generators()
        states = [generator.get_state() for generator in generators]
        output, spans = self._distinct(batch, self._names(calls, memory), memory, (
            lambda rows: self._execute(kind, rows, calls[0].rows.count, mark, check)))
        for generator, state in zip(generators, states, strict=True):
            if not torch.equal(generator.get_state(), state):
                generator.set_state(state)
                raise NotRows("it draws random numbers")
        outputs = output.split([call.rows.count for call in calls])
        if kind not in self._proved and len(calls) > 1:
            self._prove(kind, calls, outputs)
        return [Outcome(output.value(), tuple(spans), call.rows.count / batch.count)
                for call, output in zip(calls, outputs, strict=True)]

    def _kind(self, calls: Sequence[Call]) -> tuple:
        """What is proved, planned and limited once: the calls but for the contents of their
        tensors; scalars become a vector where there are several calls."""
        return calls[0].rows.key(), len(calls) > 1

    def _names(self, calls: Sequence[Call], memory: Memory | None) -> list[Any]:
        """For each row what decides its output; its place where equal rows are not looked for."""
        names: list[Any] = []
        for call in calls:
            if memory and (self.remembers or call.first):
                names += [(self.name, call.key, digest) for digest in call.rows.digests()]
            else:
                names += range(len(names), len(names) + call.rows.count)
        return names

    def _distinct(
        self, batch: Rows, names: list[Any], memory: Memory | None,
        execute: Callable[[Rows], tuple[Rows, list]],
    ) -> tuple[Rows, list]:
        """The output of all rows; those of one name, here or in an earlier call, computed once."""
        places: dict[Any, int] = {}
        for place, name in enumerate(names):
            if memory is None or memory.get(name) is None:
                places.setdefault(name, place)
        if len(places) == batch.count:
            output, spans = execute(batch)
        else:
            computed, spans = execute(batch.select(list(places.values()))) if places else (None, [])
            numbers = {name: number for number, name in enumerate(places)}
            output = join([computed.select([numbers[name]]) if name in numbers
                           else memory.get(name) for name in names])
        for name, place in places.items():
            if memory and not isinstance(name, int):
                memory.keep(name, output.select([place]))
        return output, spans

    def _prove(self, kind: tuple, calls: Sequence[Call], outputs: Sequence[Rows]) -> None:
        """Compute the first and the last call alone; raises NotRows where they differ."""
        for place in (0, len(calls) - 1):
            plain = self.compute(*calls[place].args, **calls[place].kwargs)
            self._compare(calls[place].rows.of_output(plain), outputs[place])
        self._proved.add(kind)

    def _compare(self, plain: Rows, batched: Rows) -> None:
        difference = largest_difference(plain, batched)
        limit = max((TOLERANCE.get(leaf.value.dtype, 1e-3) for leaf in plain.leaves
                     if leaf.kind == "rows"), default=1e-3)
        if difference > limit:
            raise NotRows("its rows depend on the others of a batch: they differ by "
                          f"{difference:.2g} of their largest value, accepted {limit:g}")

    def _execute(
        self, kind: tuple, rows: Rows, first_limit: int, mark: Callable[[], Any],
        check: Callable[[], None] | None,
    ) -> tuple[Rows, list[tuple[Any, Any]]]:
        """The output of rows that memory may not hold at once, and the times between marks. The
        first call of a kind has as many as a cell's own, each later one twice as many."""
        outputs: list[Rows] = []
        spans: list[tuple[Any, Any]] = []
        at = 0
        while at < rows.count:
            if check and outputs:
                check()
            limit = self._limits.setdefault(kind, first_limit)
            count = min(limit, rows.count - at)
            if count > first_limit:
                count = self._likely(kind, count)
            part = rows if count == rows.count else rows.select(slice(at, at + count))
            try:
                output, span = self._watched(kind, part, count >= limit, mark)
            except Exception as error:
                free_memory(self.device)
                if not is_out_of_memory(error) or count == 1:
                    raise
                self._limits[kind] = self._too_many[kind] = count // 2
                continue
            outputs.append(output)
            spans.append(span)
            at += count
            if count >= limit:
                self._limits[kind] = min(2 * count, self._too_many.get(kind, MAX_ROWS))
        return join(outputs), spans

    def _likely(self, kind: tuple, limit: int) -> int:
        """As many rows as memory is likely to hold."""
        if needed := self._row_bytes.get(kind):
            limit = min(limit, int(MEMORY_SHARE * free_memory_bytes(self.device) / needed))
        return max(1, limit)

    def _watched(
        self, kind: tuple, part: Rows, growing: bool, mark: Callable[[], Any]
    ) -> tuple[Rows, tuple[Any, Any]]:
        """The output of one call; what a row takes of memory is seen where the process has never
        had so much."""
        began = time.perf_counter()
        if not self.device.startswith("cpu"):
            start = mark()
            output, span = part.of_output(self._value(part)), None
            span = (start, mark())
        elif growing:
            peak, present = peak_memory_bytes(), memory_in_use_bytes()
            output, span = self._spread(kind, part, mark)
            if peak_memory_bytes() > peak:
                row_bytes = (peak_memory_bytes() - present) // part.count
                self._row_bytes[kind] = max(self._row_bytes.get(kind, 0), row_bytes)
        else:
            output, span = self._spread(kind, part, mark)
        self.row_seconds = (time.perf_counter() - began) / part.count
        return output, span

    def _value(self, rows: Rows) -> Any:
        args, kwargs = rows.value()
        return self.compute(*args, **kwargs)

    def _spread(
        self, kind: tuple, part: Rows, mark: Callable[[], Any]
    ) -> tuple[Rows, tuple[Any, Any]]:
        """The output of a call on the CPU, spread over its cores as was fastest for its size; the
        first one of a kind that can be taken apart compares its parts with the whole."""
        ways = plans(part.count) if self.splits else [Plan(1, cores())]
        if len(ways) == 1 or kind in self._whole:
            start = mark()
            return self._planned(part, ways[-1]), (start, mark())
        size = kind, part.count if part.count < 2 * cores() else 0  # many are many
        pace = self._paces.setdefault(size, Pace(ways))
        if ways[0].parts > 1 and kind not in self._taken_apart:
            return self._take_apart(kind, pace, part, mark)
        return self._timed(pace, pace.next, part, mark)

    def _timed(
        self, pace: Pace, plan: Plan, part: Rows, mark: Callable[[], Any]
    ) -> tuple[Rows, tuple[Any, Any]]:
        """The output of a call spread as `plan` says; `pace` is told what it took."""
        start, since = mark(), time.perf_counter()
        output = self._planned(part, plan)
        pace.took(plan, (time.perf_counter() - since) / part.count)
        return output, (start, mark())

    def _take_apart(
        self, kind: tuple, pace: Pace, part: Rows, mark: Callable[[], Any]
    ) -> tuple[Rows, tuple[Any, Any]]:
        """The output of a call that is computed whole and in parts, which must agree."""
        (in_parts, *_, whole), before = pace.samples, self._state()
        output, span = self._timed(pace, whole, part, mark)
        if changes := changed(before):  # once may be a cache that fills up
            before = self._state()
            output, span = self._timed(pace, whole, part, mark)
            if changes & changed(before):
                self._whole.add(kind)
                return output, span
        self._compare(output, self._timed(pace, in_parts, part, mark)[0])
        self._taken_apart.add(kind)
        return output, span

    def _state(self) -> list[tuple[torch.nn.Module, dict[str, Any]]]:
        return [(module, dict(vars(module))) for module in self.owner.modules()]

    def _planned(self, part: Rows, plan: Plan) -> Rows:
        number = plan.parts if plan.parts == 1 else max(
            plan.parts, math.ceil(part.count / ROWS_A_PART))
        counts = [part.count * (i + 1) // number - part.count * i // number for i in range(number)]
        parts = [part] if number == 1 else part.split(counts)
        outputs = compute(self._value, parts, plan.threads)
        return join([piece.of_output(output)
                     for piece, output in zip(parts, outputs, strict=True)])

    def _present_dtype(self) -> torch.dtype | None:
        return next((parameter.dtype for parameter in self.owner.parameters()), None)


_contents = WeakIdKeyDictionary()


def contents(tensor: torch.Tensor) -> bytes:
    """A hash of a tensor; a pipeline hands the same one to each step."""
    version, digest = _contents.get(tensor, (None, b""))
    if version != tensor._version:
        digest = hashlib.blake2b(tensor_bytes(tensor), digest_size=16).digest()
        _contents[tensor] = tensor._version, digest
    return digest


def changed(
    before: Sequence[tuple[torch.nn.Module, dict[str, Any]]]
) -> set[tuple[torch.nn.Module, str]]:
    """What a call left otherwise in its modules: a network that keeps a state from call to call,
    such as a film's autoencoder, cannot work on two parts at once."""
    return {(module, name) for module, state in before for name, value in vars(module).items()
            if name not in state or state[name] is not value}


def _size(row: Rows) -> int:
    return sum(leaf.value.nbytes for leaf in row.leaves if leaf.kind == "rows")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )

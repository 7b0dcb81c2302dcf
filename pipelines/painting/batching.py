"""Continuous batching of plain pipelines: one way to make pictures, whatever the pipeline.

Each cell is a call of its plain pipeline in a greenlet of its own. Where it calls a network it
waits; when all cells wait, calls of one network with the same shapes run as one batch, and each
cell goes on with its rows of the output. Language-model servers call this continuous batching. The
pipelines know nothing of it, so schedulers, guidance scales, seeds, prompts, step counts, tasks and
classes may differ.

- Greenlets, not threads: they switch only where a network is called, so the order is the same each
  time and nothing needs a lock.
- What a cell may not share is kept apart at each switch: torch's global random numbers, the
  function modes that it entered, its clock.
- Texts, input pictures and decoding go first; the denoiser runs when all cells wait for it.
- A new cell begins when another ends, so the batch stays full.
"""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import greenlet
import torch

from pipelines.errors import Cancelled, NoFurther
from pipelines.hardware import cores
from pipelines.models.loaded import LoadedModel
from pipelines.models.parts import AUTOENCODERS, DENOISERS
from pipelines.painting.extras import Extras
from pipelines.painting.networks import MAX_ROWS, Call, Memory, Network, Outcome
from pipelines.painting.timing import Clock, MemoryWatch

if TYPE_CHECKING:
    from torch.overrides import TorchFunctionMode

    from pipelines.painting.guiding import Guiding

# A comparison that takes longer shows its first cells after a third of its time at the latest.
LONG_SECONDS, LEAST_ROWS = 10.0, 8


@dataclass(frozen=True)
class Work:
    """A picture to make: `make` is called in the cell's greenlet; `rows` of a denoiser call and
    `evaluations` are what it is likely to take."""

    make: Callable[[Cell], Any]
    rows: int = 1
    evaluations: int = 1


class CellClock:
    """A cell's own time: its own work, and its share of the calls that it takes part in."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._waits: list[tuple[Any, Any, tuple[tuple[Any, Any], ...], float]] = []

    def mark(self) -> Any:
        return len(self._waits), self.clock.mark()

    def waited(self, since: Any, until: Any, outcome: Outcome) -> None:
        self._waits.append((since, until, outcome.spans, outcome.share))

    def finish(self) -> None:
        self.clock.finish()

    def ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two marks; call finish() first."""
        ms = self.clock.ms(start[1], end[1])
        for since, until, spans, share in self._waits[start[0] : end[0]]:
            ms += share * sum(self.clock.ms(*span) for span in spans) - self.clock.ms(since, until)
        return ms


class Cell:
    """A picture being made. `outcome` is what its work gave or raised; `shared` tells whether a
    call was shared with another cell; `probe` hears of its calls (see probe.py), `guiding` changes
    what its denoiser gives (see guiding.py); `extras` holds what else was computed and failed."""

    def __init__(self, number: int, work: Work, batch: Batch) -> None:
        self.number, self.work, self.batch = number, work, batch
        self.clock, self.memory = CellClock(batch.clock), batch.memory_watch
        self.extras = Extras()
        self.greenlet = greenlet.greenlet(self._make)
        self.outcome: Any = None
        self.shared = False
        self.probe: Any = None
        self.guiding: Guiding | None = None
        self.modes: list[TorchFunctionMode] = []
        self.random_state: list[torch.Tensor] | None = None
        self.calls: Counter[str] = Counter()
        self.networks: dict[str, Network] = {}
        self._apart = False

    def _make(self) -> None:
        try:
            self.outcome = self.work.make(self)
        except Exception as error:
            self.outcome = error

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """Networks called inside run at once and alone, for previews."""
        self._apart = True
        try:
            yield
        finally:
            self._apart = False

    @contextlib.contextmanager
    def inside(self, mode: TorchFunctionMode) -> Iterator[None]:
        """A function mode that holds for this cell only."""
        self.modes.append(mode)
        try:
            with mode:
                yield
        finally:
            self.modes.remove(mode)

    @property
    def notes(self) -> list[str]:
        """What could not be shared, where there are others to share with."""
        if not self.batch.several:
            return []
        return [f"{network.name}: computed alone, {network.alone}"
                for network in self.networks.values() if network.alone]

    def call(self, network: Network, args: tuple, kwargs: dict[str, Any]) -> Any:
        """A call of a network, made by this cell's pipeline."""
        if self._apart or not self.batch.meets or network.recast:
            return network.compute(*args, **kwargs)
        call = Call(self, network, args, kwargs, first=not self.calls[network.name])
        self.calls[network.name] += 1
        self.networks[network.name] = network
        for mode in reversed(self.modes):
            mode.__exit__(None, None, None)
        since = self.batch.clock.mark()
        try:
            outcome = self.batch.hub.switch(call)
        finally:
            for mode in self.modes:
                mode.__enter__()
        self.clock.waited(since, self.batch.clock.mark(), outcome)
        if isinstance(outcome.value, Exception):
            raise outcome.value
        return outcome.value


class Batch:
    """The cells of one loaded model that are made side by side.

    `meets` False: each runs alone, its networks are called as they are (offloaded, quantised or
    compiled ones, caching hooks, other attention backends). `slow`: a call takes so long that it
    may be cancelled inside.
    """

    def __init__(
        self, model: LoadedModel, works: Sequence[Work], meets: bool = True, slow: bool = False
    ) -> None:
        self.model, self.works, self.meets, self.slow = model, works, meets, slow
        self.several = len(works) > 1
        self.clock, self.memory_watch = Clock(model.device), MemoryWatch(model.device)
        self.hub = greenlet.getcurrent()
        self._cells: dict[greenlet.greenlet, Cell] = {}
        self._waiting: list[Call] = []
        self._memory = Memory() if self.several else None

    def run(
        self,
        on_outcome: Callable[[int, Cell], None],
        check: Callable[[], None] | None = None,
    ) -> None:
        """Make the pictures; `on_outcome(number, cell)` for each as it is done. `check` is called
        before each network call, and before each layer of slow ones. It may raise Cancelled, as may
        a cell's own work; then all stop. Where it raises NoFurther no other picture begins, and it
        is raised again when those that have begun are done.
        """
        pending = list(range(len(self.works)))
        ending: list[NoFurther] = []

        def check_begun() -> None:
            try:
                check()
            except NoFurther as stop:
                ending.append(stop)
                pending.clear()

        if self.model.device.startswith("cpu"):
            torch.set_num_threads(cores())
        with torch.no_grad(), self._patched(check and self.slow and check_begun):
            try:
                while pending or self._cells:
                    while pending and self._has_room(pending):
                        number = pending.pop(0)
                        cell = Cell(number, self.works[number], self)
                        self._cells[cell.greenlet] = cell
                        self._resume(cell, None, on_outcome)
                    if not self._waiting:
                        continue
                    if check:
                        check_begun()
                    self._compute(self._next_group(), check and check_begun, on_outcome)
            finally:
                self._stop()
        if ending:
            raise ending[0]

    def _has_room(self, pending: list[int]) -> bool:
        """Whether another cell fits beside those that are made now."""
        if not self._cells:
            return True
        if not self.meets:
            return False
        live = sum(cell.work.rows for cell in self._cells.values())
        return live + self.works[pending[0]].rows <= self._room()

    def _room(self) -> int:
        """Rows at once: few enough that the first cells of a long batch do not come at its end."""
        rows = sum(work.rows for work in self.works)
        pace = max((network.row_seconds or 0.0 for network in self._networks()
                    if network.denoises), default=0.0)
        seconds = pace * sum(work.rows * work.evaluations for work in self.works)
        if 0 < seconds < LONG_SECONDS:
            return MAX_ROWS
        return max(LEAST_ROWS, min(MAX_ROWS, rows // 3))

    def _next_group(self) -> list[Call]:
        """Calls that run together now, taken from those that wait: a denoiser's only where nothing
        else is to be done, and those of the oldest cell."""
        calls = sorted(self._waiting, key=lambda call: (call.network.denoises, call.cell.number))
        first = calls[0]
        group = [call for call in calls
                 if call.network is first.network and call.key == first.key]
        self._waiting = [call for call in self._waiting if call not in group]
        return group

    def _compute(
        self, group: list[Call], check: Callable[[], None] | None,
        on_outcome: Callable[[int, Cell], None],
    ) -> None:
        network = group[0].network
        outcomes = network.run(group, self.clock.mark, self._memory, check)
        with group[0].cell.extras.attempt("peak memory"):
            self.memory_watch.look()
        for call, outcome in zip(group, outcomes, strict=True):
            call.cell.shared |= len(group) > 1 and not network.alone
            self._resume(call.cell, outcome, on_outcome)

    def _resume(
        self, cell: Cell, outcome: Outcome | None, on_outcome: Callable[[int, Cell], None]
    ) -> None:
        """Let a cell go on until it waits again or ends."""
        if cell.random_state is not None:
            _set_random_state(cell.random_state)
        call = cell.greenlet.switch(outcome) if outcome else cell.greenlet.switch()
        cell.random_state = _random_state(self.model.device)
        if not cell.greenlet.dead:
            self._waiting.append(call)
            return
        del self._cells[cell.greenlet]
        if isinstance(cell.outcome, Cancelled):
            raise cell.outcome
        on_outcome(cell.number, cell)

    def _stop(self) -> None:
        """End the cells that are left, so that what they hold is put back."""
        for cell in self._cells.values():
            with contextlib.suppress(Exception):
                cell.greenlet.throw(Cancelled("stopped"))
        self._cells.clear()

    def _networks(self) -> list[Network]:
        return list(self.model.networks.values())

    @contextlib.contextmanager
    def _patched(self, check: Callable[[], None] | None) -> Iterator[None]:
        """The networks' calls go through the cells, `check` is called before each layer; as they
        were afterwards."""
        with contextlib.ExitStack() as stack:
            for name, part in self.model.pipe.components.items():
                if not isinstance(part, torch.nn.Module):
                    continue
                methods = ("encode", "decode") if name in AUTOENCODERS else ("forward",)
                denoises = name.removeprefix("prior_") in DENOISERS
                for method in methods:
                    # Offloading puts hooks of its own in place of forward, and takes them away.
                    if hasattr(part, method) and (self.meets or method != "forward"):
                        stack.enter_context(self._one_patched(name, part, method, denoises))
                if denoises:
                    hook = part.register_forward_pre_hook(self._before_denoiser, with_kwargs=True)
                    stack.callback(hook.remove)
                    hook = part.register_forward_hook(self._behind_denoiser, with_kwargs=True)
                    stack.callback(hook.remove)
                for module in part.modules() if check else ():
                    stack.callback(module.register_forward_pre_hook(lambda *_: check()).remove)
            yield

    @contextlib.contextmanager
    def _one_patched(
        self, name: str, part: torch.nn.Module, method: str, denoises: bool
    ) -> Iterator[None]:
        label = name if method == "forward" else f"{name}.{method}"
        network = self.model.networks.get((id(part), method))
        if network is None:
            network = Network(label, part, method, denoises, self.model.device)
            self.model.networks[id(part), method] = network
        network.renew()

        @functools.wraps(network.compute)
        def called(*args: Any, **kwargs: Any) -> Any:
            cell = self._cells.get(greenlet.getcurrent())
            if cell is None:  # inside another network's call
                return network.compute(*args, **kwargs)
            if cell.probe is None:
                return cell.call(network, args, kwargs)
            return cell.probe.watched(network, lambda: cell.call(network, args, kwargs))

        before = vars(part).get(method)
        setattr(part, method, called)
        try:
            yield
        finally:
            if before is None:
                delattr(part, method)
            else:
                setattr(part, method, before)

    def _before_denoiser(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        cell = self._cells.get(greenlet.getcurrent())
        if cell is not None and cell.probe is not None:
            cell.probe.before_denoiser(module, args, kwargs)

    def _behind_denoiser(
        self, module: torch.nn.Module, args: tuple, kwargs: dict, output: Any
    ) -> Any:
        cell = self._cells.get(greenlet.getcurrent())
        if cell is not None and cell.guiding is not None:
            return cell.guiding.guide(module, args, kwargs, output)
        return output


def _random_state(device: str) -> list[torch.Tensor]:
    """Where the random numbers stand that need no generator."""
    states = [torch.get_rng_state()]
    if device.startswith("cuda"):
        states.append(torch.cuda.get_rng_state())
    return states


def _set_random_state(states: Sequence[torch.Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])

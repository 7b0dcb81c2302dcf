"""Pictures made by the devices of a cluster: handed out, taken in, and logged by the driver.

A picture is logged when its device has told it, by the driver alone, and only while it counts among
those that the device has still to make: what a device that was given up would tell later is not
heard. So each is logged once, whatever dies.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pipelines.cluster.device import NO_FURTHER, Event, Item
from pipelines.cluster.driver import Batch, Cluster, Link, images_of
from pipelines.cluster.sharing import MOST, MOST_DEATHS, Bag, share_of
from pipelines.error_log import append
from pipelines.errors import ClusterError, LoadError, NoFurther, PipelineError, StorageError
from pipelines.log_tables import Run
from pipelines.painting.result import Step
from pipelines.schedulers import expected_evaluations

if TYPE_CHECKING:
    from PIL.Image import Image

    from pipelines.engine import Engine
    from pipelines.making import Wanted


def make_on_cluster(
    cluster: Cluster,
    engine: Engine,
    wanted: Sequence[Wanted],
    on_step: Callable[[int, Step], None] | None = None,
    on_run: Callable[[int, Run], None] | None = None,
    check: Callable[[], None] | None = None,
    apart: bool = False,
) -> None:
    """What `Engine.make` does, by the devices of a cluster; with `apart` a device makes one picture
    at a time. Raises ClusterError where no device is left."""
    if not wanted:
        return
    with cluster.lock:
        cluster.wait_for_devices()
        _Work(cluster, engine, wanted, on_step, on_run, check, apart).do()


class _Work:
    """One call of `make_on_cluster`."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        wanted: Sequence[Wanted],
        on_step: Callable[[int, Step], None] | None,
        on_run: Callable[[int, Run], None] | None,
        check: Callable[[], None] | None,
        apart: bool,
    ) -> None:
        self.cluster, self.engine, self.wanted = cluster, engine, wanted
        self.on_step, self.on_run, self.check = on_step, on_run, check
        self.requests = [picture.request for picture in wanted]
        self.bag = Bag([tuple(request.weights.values()) for request in self.requests],
                       [self._cost(number) for number in range(len(wanted))],
                       1 if apart else MOST)
        self.models: dict[tuple, Any] = {}  # what Engine.model_of remembers
        self.undrawn: dict[int, tuple[Link, Run]] = {}  # logged, their strips are to come
        self.previews: dict[int, Image | None] = {}
        self.wants_preview = False
        self.ending: NoFurther | None = None
        cluster.batches = []

    def do(self) -> None:
        cluster = self.cluster
        try:
            while len(self.bag) or any(link.busy for link in cluster.ready()):
                self._check()
                cluster.look_again()
                for link in cluster.ready():
                    if not link.busy:
                        self._hand_out(link)
                self._see_that_it_goes_on()
                for link, lost in cluster.next_events():
                    if lost:
                        self._lost(link, lost)
                for link in cluster.ready():
                    while link.inbox:
                        self._take(link, link.inbox.popleft())
                    if link.busy and link.answer is None:
                        link.ask(self.wants_preview)
                        self.wants_preview = False
        except BaseException:
            cluster.stop(cluster.ready(), self._take_quietly)
            raise
        if self.ending:
            raise self.ending

    def _check(self) -> None:
        try:
            if self.check and not self.ending:
                self.check()
        except NoFurther as stop:
            self.ending = stop
            self.bag.clear()
            for link in self.cluster.ready():
                if link.busy:
                    link.actor.stop.remote(link.session, NO_FURTHER)

    def _cost(self, number: int) -> float:
        """What a picture takes, in calls of its denoiser."""
        request = self.requests[number]
        return max(1, expected_evaluations(request.scheduler,
                                           self.engine.registry.steps_to_run(request)))

    # --- handing out

    def _hand_out(self, link: Link) -> None:
        others = [other for other in self.cluster.ready() if other is not link]
        share = share_of({other.label: other.pace for other in self.cluster.ready()}, link.label)
        numbers = self.bag.take(share, link.models, {o.model for o in others if o.busy},
                                link.lacking)
        if not numbers:
            return
        link.model = self.bag.models[numbers[0]]
        link.models = [*(model for model in link.models if model != link.model), link.model]
        link.cost = sum(self.bag.costs[number] for number in numbers)
        link.numbers, link.count = set(numbers), len(numbers)
        try:
            images = images_of(self.engine, [self.requests[number] for number in numbers])
        except StorageError:  # one of them is gone, and its run says so
            images = {}
        link.begin("make", [self._item(number) for number in numbers], images)

    def _item(self, number: int) -> Item:
        picture, identity = self.wanted[number], None
        with contextlib.suppress(PipelineError):  # its run says what is wrong
            identity = self.engine.identity(picture.request, self.models)
        return Item(number, picture.request.model_dump(mode="json"), identity,
                    bool(picture.comparison_id or picture.keep_latents))

    def _see_that_it_goes_on(self) -> None:
        """Where nobody can make what is left, its runs say why, or there is nobody."""
        cluster = self.cluster
        if not len(self.bag) or any(link.busy for link in cluster.ready()) or \
                cluster.waiting(ready=False):
            return
        if not cluster.ready():
            raise ClusterError(f"no device of the cluster is left; {len(self.bag)} pictures are "
                               "still to be made")
        for model in set(self.bag.models):
            reasons = [link.lacking.get(model, "") for link in cluster.ready()]
            if all(reasons):
                error = LoadError(f"no device has the model: {'; '.join(reasons)}")
                for number in self.bag.remove(model):
                    self._ended(number, self.engine.failed(self.wanted[number], error))

    # --- taking in

    def _take(self, link: Link, event: Event) -> None:
        """What a device tells; callbacks may raise Cancelled."""
        if event.batch != link.batch:
            return
        if event.kind == "step" and event.number in link.numbers:
            self._step(event)
        elif event.kind == "done":
            self._done(link, *event.values)
        elif run := self._take_quietly(link, event):
            self._ended(event.number, run)

    def _take_quietly(self, link: Link, event: Event) -> Run | None:
        """What is kept even where the work is cancelled; a run that is logged now."""
        if event.kind == "errors":
            append(self.engine.home, f"on {link.label}:\n{event.values[0]}")
        elif event.kind == "run" and event.number in link.numbers:
            link.numbers.discard(event.number)
            run = self._log(event.number, *event.values)
            if run.status == "ok":
                self.undrawn[event.number] = link, run
            return run
        elif event.kind == "strip" and event.number in self.undrawn:
            columns, strip = event.values
            _, run = self.undrawn.pop(event.number)
            if strip:
                self.engine.pictures.write(strip)
            own = [note for note in columns["notes"] if note not in run.notes]
            self.engine.run_log.update(run, **columns | {"notes": [*run.notes, *own]})
        elif event.kind == "refused" and event.number in link.numbers:
            link.numbers.discard(event.number)
            link.lacking[self.bag.models[event.number]] = event.values[0]
            self.bag.put_back([event.number], died=False)
        return None

    def _step(self, event: Event) -> None:
        index, total, preview = event.values
        if preview:
            from PIL import Image

            self.previews[event.number] = Image.open(io.BytesIO(preview))

        def newest() -> Image | None:
            """The newest preview that came; asks for another."""
            self.wants_preview = True
            return self.previews.get(event.number)

        if self.on_step:
            self.on_step(event.number, Step(index, total, newest))

    def _log(
        self, number: int, columns: dict[str, Any], picture: bytes | None, latents: bytes | None
    ) -> Run:
        engine, wanted = self.engine, self.wanted[number]
        for store, name, data in ((engine.pictures, columns["image_sha256"], picture),
                                  (engine.latents, columns["latents_sha256"], latents)):
            if data and store.write(data) != name:
                raise StorageError(f"{store.kind} came damaged from the cluster")
        model = self.bag.models[number]
        lacking = [link.lacking[model] for link in self.cluster.ready() if model in link.lacking]
        notes = [*columns["notes"], *(f"not made by {reason}" for reason in lacking)]
        run = Run(**columns | {"notes": notes}, comparison_id=wanted.comparison_id,
                  axes=dict(wanted.axes), parent_id=wanted.parent_id)
        engine.run_log.add(run)
        return run

    def _ended(self, number: int, run: Run) -> None:
        self.previews.pop(number, None)
        if self.on_run:
            self.on_run(number, run)

    def _done(self, link: Link, broken: str, begun: float, ended: float) -> None:
        """A device has come to the end of its batch."""
        made = link.count - len(link.numbers)
        self.cluster.batches.append(Batch(link.label, made, begun, ended))
        link.pace = link.cost / max(1e-6, time.monotonic() - link.began)
        self._give_back(link, broken or f"{link.label} broke off")

    def _lost(self, link: Link, reason: str) -> None:
        """A device has gone: what it had still to make goes to others."""
        while link.inbox:
            self._take(link, link.inbox.popleft())
        for number, (device, run) in list(self.undrawn.items()):
            if device is link:
                del self.undrawn[number]
                self.engine.run_log.update(run, notes=[
                    *run.notes, f"its steps were lost with {link.label}, which has gone"])
        self.cluster.lose(link, reason)
        self._give_back(link, f"{link.label} has gone: {reason}")

    def _give_back(self, link: Link, reason: str) -> None:
        left, link.numbers = link.numbers, set()
        link.ended()
        if self.ending:
            return
        for number in self.bag.put_back(left, died=True):
            error = ClusterError(f"given up: {MOST_DEATHS} devices ended while they made it, the "
                                 f"last time: {reason}")
            self._ended(number, self.engine.failed(self.wanted[number], error))

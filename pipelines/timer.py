"""How long pictures take, each made apart, all of them on one device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.log_tables import STAGES
from pipelines.making import make_picture
from pipelines.painting.resolve import resolve
from pipelines.painting.result import OnStep
from pipelines.request import RunRequest

if TYPE_CHECKING:
    from pipelines.engine import Engine


@contextlib.contextmanager
def timer(
    engine: Engine, before: Collection[str] = ()
) -> Iterator[Callable[[RunRequest, OnStep | None], dict[str, Any]]]:
    """Something that makes a picture apart and gives its times as columns of `Timing`: all on one
    device, with a cluster on one of `before` (names of its devices) where it is there."""

    def timed(request: RunRequest, on_step: OnStep | None) -> dict[str, Any]:
        with engine.registry.borrow(**request.weights) as (model, _):
            size = engine.image_size(request)
            measured = make_picture(model, resolve(request, model.info, size),
                                    engine.images(request), on_step).timings
        return {f"{name}_ms": getattr(measured, name) for name in STAGES}

    with (engine.cluster.timer(engine, before) if engine.cluster
          else contextlib.nullcontext(timed)) as either:
        yield either

"""Runs in MLflow's format, by MLflow itself: one of its runs for each of ours, with parameters,
metrics, tags and the picture.

The package is asked for when it is needed: it brings more with it than this program has use for.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RequestError, StorageError, first_line
from pipelines.exchange.archive import OnDone
from pipelines.log_tables import STAGES, Run
from pipelines.run_marks import RunMarks

if TYPE_CHECKING:
    from pipelines.engine import Engine

EXPERIMENT = "contact-sheet"
# What every store of MLflow takes: characters of a parameter, and how many at once.
LONGEST, MOST_PARAMS, MOST_METRICS = 500, 100, 1000
OURS = "contact_sheet.identity"  # the tag by which a run is known again
STATUS = {"ok": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def check_mlflow() -> Any:
    """The package; RequestError where it is not installed."""
    try:
        import mlflow
    except ImportError:
        raise RequestError("mlflow: the package is not installed; python -m pip install "
                           "mlflow-skinny brings what an export needs") from None
    return mlflow


def write_mlflow(
    engine: Engine, runs: Iterable[Run], total: int, target: Path, on_done: OnDone | None = None
) -> int:
    """Write runs into a folder of MLflow's; how many are new there: one that an earlier export
    wrote stays as it is. Raises RequestError and StorageError."""
    mlflow = check_mlflow()
    from mlflow.exceptions import MlflowException

    written = 0
    try:
        with _file_store():
            client = mlflow.MlflowClient(tracking_uri=target.absolute().as_uri())
            experiment = client.get_experiment_by_name(EXPERIMENT)
            number = experiment.experiment_id if experiment else client.create_experiment(
                EXPERIMENT)
            for done, run in enumerate(runs, 1):
                key = f"{run.identity or ''} {run.datetime_utc} {run.comparison_id or ''}"
                if not client.search_runs([number], f"tags.`{OURS}` = '{key}'", max_results=1):
                    _write(engine, mlflow, client, number, run, key)
                    written += 1
                if on_done:
                    on_done(done, total)
    except (OSError, MlflowException) as error:
        raise StorageError(f"{target} cannot be written by mlflow: {first_line(error)}") from error
    return written


@contextlib.contextmanager
def _file_store() -> Iterator[None]:
    """MLflow's folders, which newer versions ask to be told that they are wanted."""
    name = "MLFLOW_ALLOW_FILE_STORE"
    before = os.environ.get(name)
    os.environ[name] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _write(
    engine: Engine, mlflow: Any, client: Any, experiment: str, run: Run, key: str
) -> None:
    ended = int(datetime.datetime.fromisoformat(run.datetime_utc).timestamp() * 1000)
    began = ended - int(run.total_ms or 0)
    tags = {OURS: key, "mlflow.runName": f"run {run.id}", "mlflow.note.content": run.remark}
    tags |= {"contact_sheet.comparison": run.comparison_id, "contact_sheet.error": run.error,
             "contact_sheet.picture": run.image_sha256, "contact_sheet.device": run.device,
             "contact_sheet.notes": "; ".join(run.notes),
             "contact_sheet.tags": ", ".join(RunMarks(engine.run_log).tags([run.id]).get(
                 run.id, []))}
    made = client.create_run(experiment, start_time=began,
                             tags={name: value for name, value in tags.items() if value})
    number = made.info.run_id
    entities = mlflow.entities
    params = [entities.Param(name, str(value)[:LONGEST]) for name, value in run.request.items()
              if value not in (None, "", [], {})]
    times = {f"{name}_ms": getattr(run, f"{name}_ms") for name in (*STAGES, "load", "warm_up")}
    values = {"nfe": run.nfe, "peak_memory_bytes": run.peak_memory_bytes}
    values |= {f"share_of_{name}" if run.shared else name: value for name, value in times.items()}
    for distance, reference in engine.run_log.distances([run.source_id]):
        values |= {f"{name}_to_run_{reference.id}": value
                   for name, value in distance.as_dict().items() if isinstance(value, int | float)}
    metrics = [entities.Metric(name, float(value), ended, 0) for name, value in values.items()
               if value is not None]
    step = "share_of_step_ms" if run.shared else "step_ms"
    metrics += [entities.Metric(step, ms, ended, place) for place, ms in enumerate(run.step_ms, 1)]
    client.log_batch(number, params=params[:MOST_PARAMS])
    for first in range(0, len(metrics), MOST_METRICS):
        client.log_batch(number, metrics=metrics[first : first + MOST_METRICS])
    if path := engine.picture_path(run):
        client.log_artifact(number, str(path))
    client.set_terminated(number, STATUS.get(run.status, "FAILED"), ended)

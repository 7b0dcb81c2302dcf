"""The run log: a row for every run; their pictures are in stores.py."""

from __future__ import annotations

import datetime
import math
import os
import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import JSON, Float, ForeignKey, Select, case, func, or_, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from pipelines.checked_rows import checked
from pipelines.database import Database
from pipelines.errors import RequestError, StorageError
from pipelines.names import Sha256
from pipelines.request import RunRequest


def data_home() -> Path:
    """Where the log and the pictures lie; CONTACT_SHEET_HOME moves it."""
    if home := os.environ.get("CONTACT_SHEET_HOME"):
        return Path(home).expanduser().absolute()
    return user_data_path("contact-sheet", appauthor=False)


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    type_annotation_map = {float: Float} | dict.fromkeys(
        (dict[str, Any], list[dict[str, Any]], list[str], list[int], list[float]), JSON)
    damage = ""  # what was wrong with the row when it was read (checked_rows.py)

    def contradictions(self) -> list[str]:
        """What is wrong with a row whose columns are each as they should be."""
        return []


@checked
class ComparisonRow(Base):
    """A base request and its axes; `axes` is a list of {name, values}, `skip` the rules that leave
    cells out, `reference` what the cells are measured against: None, 'converged' or a cell (see
    measurement.py)."""

    __tablename__ = "comparisons"

    id: Mapped[str] = mapped_column(primary_key=True)
    datetime_utc: Mapped[str]
    base: Mapped[dict[str, Any]]
    axes: Mapped[list[dict[str, Any]]]
    status: Mapped[str] = mapped_column(default="running")
    reference: Mapped[str | None] = mapped_column(default=None)
    skip: Mapped[list[str]] = mapped_column(default_factory=list)

    def contradictions(self) -> list[str]:
        return [f"axis: received {axis!r:.80}, accepted a name and its values" for axis in self.axes
                if not (isinstance(axis.get("name"), str) and isinstance(axis.get("values"), list))]

    @property
    def summary(self) -> str:
        """Prompt and axes in a line, or what is wrong with the row."""
        axes = " × ".join(f"{len(axis['values'])} {axis['name']}" for axis in self.axes
                          if not self.damage)
        return self.damage or f"{self.base.get('prompt', '')} · {axes}"


STAGES = ("text_encoding", "denoising", "decoding", "total")  # what is timed


@checked
class Run(Base):
    """One picture made, or not made and why; `axes` are the cell's values in its comparison.

    Times are milliseconds, `datetime_utc` is ISO 8601 at the end of the run, `request` is the
    whole RunRequest, `environment` the hardware and library versions, `notes` what of the request
    had no effect. `shared`: its UNet calls were shared with other cells, its times are a share.
    `steps_sha256` names a picture of the predicted x0 side by side, `steps_shown` the steps in it,
    from 1. `parent_id`: the run whose picture this one started from. `identity` is
    the hash of everything that decides the picture (see identity.py), `latents_sha256` names the
    final latents where they were kept. `reused_from`: the run that was made before and taken from
    the log, of which this row is a copy for another comparison.
    `unmasked_pixels`: how many an in-painting was to keep, `changed_unmasked_pixels`: of these.
    """

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    datetime_utc: Mapped[str] = mapped_column(index=True)
    status: Mapped[str]
    error: Mapped[str | None] = mapped_column(default=None)
    comparison_id: Mapped[str | None] = mapped_column(
        ForeignKey("comparisons.id"), index=True, default=None
    )
    axes: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    model_id: Mapped[str]
    task: Mapped[str]
    prompt: Mapped[str]
    negative_prompt: Mapped[str]
    scheduler: Mapped[str]
    num_inference_steps: Mapped[int]
    guidance_scale: Mapped[float]
    seed: Mapped[int]
    height: Mapped[int | None] = mapped_column(default=None)
    width: Mapped[int | None] = mapped_column(default=None)
    request: Mapped[dict[str, Any]]
    nfe: Mapped[int | None] = mapped_column(default=None)
    denoiser_rows: Mapped[int | None] = mapped_column(default=None)
    noise_sha256: Mapped[Sha256 | None] = mapped_column(default=None)
    image_sha256: Mapped[Sha256 | None] = mapped_column(default=None)
    load_ms: Mapped[float | None] = mapped_column(default=None)
    warm_up_ms: Mapped[float | None] = mapped_column(default=None)
    text_encoding_ms: Mapped[float | None] = mapped_column(default=None)
    denoising_ms: Mapped[float | None] = mapped_column(default=None)
    decoding_ms: Mapped[float | None] = mapped_column(default=None)
    total_ms: Mapped[float | None] = mapped_column(default=None)
    step_ms: Mapped[list[float]] = mapped_column(default_factory=list)
    peak_memory_bytes: Mapped[int | None] = mapped_column(default=None)
    device: Mapped[str | None] = mapped_column(default=None)
    dtype: Mapped[str | None] = mapped_column(default=None)
    environment: Mapped[dict[str, Any]] = mapped_column(default_factory=dict)
    notes: Mapped[list[str]] = mapped_column(default_factory=list)
    shared: Mapped[bool] = mapped_column(default=False)
    steps_sha256: Mapped[Sha256 | None] = mapped_column(default=None)
    steps_shown: Mapped[list[int]] = mapped_column(default_factory=list)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), default=None)
    identity: Mapped[Sha256 | None] = mapped_column(index=True, default=None)
    latents_sha256: Mapped[Sha256 | None] = mapped_column(default=None)
    reused_from: Mapped[int | None] = mapped_column(ForeignKey("runs.id"), default=None)
    unmasked_pixels: Mapped[int | None] = mapped_column(default=None)
    changed_unmasked_pixels: Mapped[int | None] = mapped_column(default=None)

    def contradictions(self) -> list[str]:
        needed = ("image_sha256", "total_ms", "nfe") if self.status == "ok" else ()
        reasons = [f"{name} is missing" for name in needed if getattr(self, name) is None]
        if self.unmasked_pixels is not None and self.changed_unmasked_pixels is None:
            set_committed_value(self, "unmasked_pixels", None)
            reasons.append("changed_unmasked_pixels is missing")
        return reasons

    def valid_request(self) -> RunRequest:
        """The request, checked again: the log may be from another version. Raises RequestError."""
        try:
            return RunRequest(**self.request)
        except RequestError as error:
            raise RequestError(f"run {self.id}: {error}") from error

    @property
    def source_id(self) -> int:
        """The run that was really made; distances and timings are kept under it."""
        return self.reused_from or self.id

    def copy_for(self, comparison_id: str, axes: dict[str, Any]) -> Run:
        """A row that takes this run into another comparison."""
        replaced = {"id", "datetime_utc", "comparison_id", "axes", "reused_from"}
        same = {name: value for name, value in self.as_dict().items() if name not in replaced}
        return Run(datetime_utc=utc_now(), comparison_id=comparison_id, axes=axes,
                   reused_from=self.source_id, **same)

    @property
    def timings_ms(self) -> dict[str, float | None]:
        return {name: getattr(self, f"{name}_ms") for name in STAGES}

    def as_dict(self) -> dict[str, Any]:
        """Every column, for exports."""
        return {column.name: getattr(self, column.name) for column in self.__table__.columns}


@checked
class Distance(Base):
    """How far a run lies from a reference run; see measurement.py for the measures and units.
    `clip_score` is of the run and its prompt alone."""

    __tablename__ = "distances"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    reference_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    rms_latents: Mapped[float | None] = mapped_column(default=None)
    psnr: Mapped[float | None] = mapped_column(default=None)
    ssim: Mapped[float | None] = mapped_column(default=None)
    clip_distance: Mapped[float | None] = mapped_column(default=None)
    clip_score: Mapped[float | None] = mapped_column(default=None)
    clip_model: Mapped[str | None] = mapped_column(default=None)

    def as_dict(self) -> dict[str, float | str | None]:
        return {name: getattr(self, name) for name in MEASURES}


MEASURES = tuple(column.name for column in Distance.__table__.columns if not column.primary_key)


class Timing(Base):
    """One measured repeat of a run, made apart, after warm-up; milliseconds."""

    __tablename__ = "timings"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    datetime_utc: Mapped[str]
    text_encoding_ms: Mapped[float]
    denoising_ms: Mapped[float]
    decoding_ms: Mapped[float]
    total_ms: Mapped[float]


class Claim(Base):
    """A picture that is being made, by its identity, and who makes it (claims.py)."""

    __tablename__ = "claims"

    identity: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    datetime_utc: Mapped[str]


@dataclass(frozen=True)
class TimingSummary:
    """The total over `repeats` measured runs, in milliseconds: median, least and most."""

    repeats: int
    median_ms: float
    low_ms: float
    high_ms: float


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True)
class RunFilter:
    """Which runs of the log; empty fields let all through.

    `text` is looked for in both prompts; `since` and `until` are ISO dates, both included. Copies
    of a reused run are left out, unless their comparison is asked for.
    """

    text: str = ""
    model_id: str | None = None
    scheduler: str | None = None
    status: str | None = None
    since: str | None = None
    until: str | None = None
    comparison_id: str | None = None

    def applied_to(self, query: Select) -> Select:
        if self.text:
            escaped = re.sub(r"([%_\\])", r"\\\1", self.text)
            query = query.where(or_(Run.prompt.ilike(f"%{escaped}%", escape="\\"),
                                    Run.negative_prompt.ilike(f"%{escaped}%", escape="\\")))
        if self.comparison_id is None:
            query = query.where(Run.reused_from.is_(None))
        for name in ("model_id", "scheduler", "status", "comparison_id"):
            if (value := getattr(self, name)) is not None:
                query = query.where(getattr(Run, name) == value)
        if self.since:
            query = query.where(Run.datetime_utc >= self.since)
        if self.until:
            query = query.where(Run.datetime_utc < f"{self.until}~")  # after all times of that day
        return query


class RunLog:
    """The SQLite database `runs.sqlite` in a folder; made or migrated when it is opened."""

    def __init__(self, home: Path) -> None:
        try:
            home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"the data folder {home} cannot be made: {error}") from error
        self.path = home / "runs.sqlite"
        self.database = Database(self.path)
        self.version, self._session = self.database.version, self.database.session
        self._counts: tuple[int, dict[Any, Any]] = -1, {}  # of which version

    def add(self, row: Run | ComparisonRow | Timing) -> None:
        """Write a row now; raises StorageError."""
        with self._session(write=True) as session:
            session.add(row)

    def update(self, run: Run, **columns: Any) -> None:
        """Write columns of a run that were not known yet when it was added."""
        with self._session(write=True) as session:
            session.add(run)
            for name, value in columns.items():
                setattr(run, name, value)

    def finish_comparison(self, comparison_id: str, status: str) -> None:
        with self._session(write=True) as session:
            session.get_one(ComparisonRow, comparison_id).status = status

    def begin_again(self, comparison_id: str) -> None:
        with self._session(write=True) as session:
            session.get_one(ComparisonRow, comparison_id).status = "running"

    def set_reference(self, comparison_id: str, reference: str | None) -> None:
        with self._session(write=True) as session:
            session.get_one(ComparisonRow, comparison_id).reference = reference

    def comparison(self, comparison_id: str) -> ComparisonRow | None:
        with self._session() as session:
            return session.get(ComparisonRow, comparison_id)

    def comparisons(self, limit: int = 50) -> Sequence[ComparisonRow]:
        """The newest first."""
        with self._session() as session:
            query = select(ComparisonRow).order_by(ComparisonRow.datetime_utc.desc())
            return session.scalars(query.limit(limit)).all()

    def run(self, run_id: int) -> Run | None:
        with self._session() as session:
            return session.get(Run, run_id)

    def of_identities(self, identities: Collection[str]) -> dict[str, list[Run]]:
        """The pictures that were made of exactly these, by identity, the newest first."""
        query = select(Run).where(Run.identity.in_(identities), Run.status == "ok",
                                  Run.reused_from.is_(None))
        runs: dict[str, list[Run]] = {}
        with self._session() as session:
            for run in session.scalars(query.order_by(Run.id.desc())):
                if not run.damage:
                    runs.setdefault(run.identity, []).append(run)
        return runs

    def steps_of(self, comparison_id: str) -> dict[int, str | None]:
        """The ids of a comparison's runs, the oldest first, and the picture of each one's steps:
        what else is in a row never changes."""
        query = select(Run.id, Run.steps_sha256).where(Run.comparison_id == comparison_id)
        with self._session() as session:
            return dict(session.execute(query.order_by(Run.id)).all())

    def runs_by_id(self, run_ids: Collection[int]) -> Sequence[Run]:
        """The runs of these ids, the oldest first."""
        if not run_ids:
            return []
        with self._session() as session:
            return session.scalars(select(Run).where(Run.id.in_(run_ids)).order_by(Run.id)).all()

    def measured(self, run_ids: Collection[int]) -> dict[int, list[tuple]]:
        """What stands in the log of these runs' distances: by run, the columns as they are."""
        query = select(*Distance.__table__.columns).where(Distance.run_id.in_(run_ids))
        rows: dict[int, list[tuple]] = {}
        with self._session() as session:
            for row in session.execute(query.order_by(Distance.reference_id)):
                rows.setdefault(row.run_id, []).append(tuple(row))
        return rows

    def keep_distance(self, distance: Distance) -> None:
        with self._session(write=True) as session:
            session.merge(distance)  # somebody may have measured it at the same time

    def timings(self, run_ids: Sequence[int]) -> dict[int, TimingSummary]:
        """What was measured of these runs, by their id."""
        query = select(Timing.run_id, Timing.total_ms).where(Timing.run_id.in_(run_ids))
        totals: dict[int, list[float]] = {}
        with self._session() as session:
            for run_id, total in session.execute(query):
                if _are_numbers(total):
                    totals.setdefault(run_id, []).append(total)
        return {run_id: TimingSummary(len(ms), statistics.median(ms), min(ms), max(ms))
                for run_id, ms in totals.items()}

    def distances(self, run_ids: Collection[int]) -> list[tuple[Distance, Run]]:
        """What was measured of these runs, each with its reference."""
        query = select(Distance, Run).join(Run, Run.id == Distance.reference_id)
        with self._session() as session:
            return [(distance, reference) for distance, reference in
                    session.execute(query.where(Distance.run_id.in_(run_ids)))]

    def distances_to(self, reference_id: int) -> list[tuple[Distance, Run]]:
        """What was measured against a run, each with the run that was."""
        query = select(Distance, Run).join(Run, Run.id == Distance.run_id)
        with self._session() as session:
            return [(distance, run) for distance, run in
                    session.execute(query.where(Distance.reference_id == reference_id))]

    def runs(
        self,
        *,
        sort: str = "id",
        ascending: bool = False,
        limit: int | None = None,
        offset: int = 0,
        **filters: Any,
    ) -> Sequence[Run]:
        """The runs that a RunFilter of these fields lets through, the newest first; `sort` names
        a column."""
        query = RunFilter(**filters).applied_to(select(Run))
        columns = [getattr(Run, sort), Run.id]
        order = [column.asc() if ascending else column.desc() for column in columns]
        with self._session() as session:
            return session.scalars(query.order_by(*order).limit(limit).offset(offset)).all()

    def costs(self, model_id: str, limit: int = 200) -> Sequence[Any]:
        """What the newest finished runs of a model cost, and at which size: rows of a few columns
        of Run, without its JSON."""
        query = select(Run.height, Run.width, Run.nfe, Run.denoiser_rows, Run.shared, Run.device,
                       Run.denoising_ms, Run.total_ms)
        query = RunFilter(model_id=model_id, status="ok").applied_to(query)
        with self._session() as session:
            rows = session.execute(query.order_by(Run.id.desc()).limit(limit)).all()
        return [row for row in rows
                if _are_numbers(row.nfe, row.denoiser_rows, row.denoising_ms, row.total_ms)]

    def tries(self, image_sha256: str, limit: int = 24) -> Sequence[Run]:
        """In-paintings of one picture that went well, the newest first."""
        image = case((func.json_valid(Run.request) == 1, Run.request["image"].as_string()))
        query = select(Run).where(Run.task == "inpainting", Run.status == "ok",
                                  image == image_sha256)
        with self._session() as session:
            return session.scalars(query.order_by(Run.id.desc()).limit(limit)).all()

    def count(self, **filters: Any) -> int:
        """How many runs a RunFilter of these fields lets through."""
        run_filter = RunFilter(**filters)
        query = run_filter.applied_to(select(func.count(Run.id)))
        return self._over_all_rows(run_filter, query)[0]

    def distinct(self, column: str) -> list[str]:
        """The values that occur in a column, sorted."""
        values = self._over_all_rows(column, select(getattr(Run, column)).distinct())
        return sorted(value for value in values if isinstance(value, str))

    def _over_all_rows(self, key: Any, query: Select) -> Sequence[Any]:
        """What a query over the whole table gives, asked again only after a write."""
        version = self.version()
        if self._counts[0] != version:
            self._counts = version, {}
        results = self._counts[1]
        if key not in results:
            with self._session() as session:
                results[key] = session.scalars(query).all()
        return results[key]


def _are_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)

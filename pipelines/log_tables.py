"""The tables of the run log. Their rows are checked as they are read (checked_rows.py)."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import JSON, ColumnElement, Float, ForeignKey, Index, and_
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlalchemy.orm.attributes import set_committed_value

from pipelines.checked_rows import checked
from pipelines.errors import RequestError
from pipelines.names import Sha256, is_hosted
from pipelines.request import RunRequest


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


class Base(MappedAsDataclass, DeclarativeBase, kw_only=True):
    type_annotation_map = {float: Float} | dict.fromkeys(
        (dict[str, Any], list[dict[str, Any]], list[str], list[int], list[float]), JSON)
    damage = ""  # what was wrong with the row when it was read (checked_rows.py)

    def contradictions(self) -> list[str]:
        """What is wrong with a row whose columns are each as they should be."""
        return []

    @staticmethod
    def column_problems(values: dict[str, Any]) -> dict[str, str]:
        """What does not fit its column, by its name (checked_rows.py)."""
        return {}


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
    owner: Mapped[str | None] = mapped_column(default=None)

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
    whole RunRequest, `environment` the hardware and library versions, or what a provider told of
    itself, `notes` what of the request had no effect. Steps and guidance that were left to a
    provider are 0. `shared`: its UNet calls were shared with other cells, its times are a share.
    `steps_sha256` names a picture of the predicted x0 side by side, `steps_shown` the steps in it,
    from 1. `parent_id`: the run whose picture this one started from. `identity` is
    the hash of everything that decides the picture (see identity.py), `latents_sha256` names the
    final latents where they were kept. `reused_from`: the run that was made before and taken from
    the log, of which this row is a copy for another comparison.
    `unmasked_pixels`: how many an in-painting was to keep, `changed_unmasked_pixels`: of these.
    `starred`, `remark` (and `Tag`) are a person's; `deleted_utc`: since when it is in the bin.
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
    starred: Mapped[bool] = mapped_column(default=False)
    remark: Mapped[str] = mapped_column(default="")
    deleted_utc: Mapped[str | None] = mapped_column(default=None)

    def contradictions(self) -> list[str]:
        needed = ("image_sha256", "total_ms", "nfe") if self.status == "ok" else ()
        if self.hosted:
            needed = needed[:2]
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

    def readable_request(self) -> RunRequest | None:
        """The request; None where this version cannot read it."""
        try:
            return self.valid_request()
        except RequestError:
            return None

    @property
    def hosted(self) -> bool:
        """Whether a provider made it: its noise is unknown, and its time is not this machine's."""
        return is_hosted(self.model_id)

    def asked(self, name: str) -> Any:
        """A column that a request has too; None where it was left to the provider."""
        left = self.hosted and self.request.get(name) is None
        return None if left else getattr(self, name)

    @property
    def source_id(self) -> int:
        """The run that was really made; distances and timings are kept under it."""
        return self.reused_from or self.id

    def copy_for(self, comparison_id: str, axes: dict[str, Any]) -> Run:
        """A row that takes this run into another comparison."""
        replaced = {"id", "datetime_utc", "comparison_id", "axes", "reused_from", "starred",
                    "remark", "deleted_utc"}
        same = {name: value for name, value in self.as_dict().items() if name not in replaced}
        return Run(datetime_utc=utc_now(), comparison_id=comparison_id, axes=axes,
                   reused_from=self.source_id, **same)

    @property
    def timings_ms(self) -> dict[str, float | None]:
        return {name: getattr(self, f"{name}_ms") for name in STAGES}

    def as_dict(self) -> dict[str, Any]:
        """Every column, for exports."""
        return {column.name: getattr(self, column.name) for column in self.__table__.columns}


# Lists show neither copies of a run for another comparison nor what is in the bin.
def listed_of(runs: Any) -> ColumnElement[bool]:
    """Whether a row is in lists."""
    return and_(runs.reused_from.is_(None), runs.deleted_utc.is_(None))


LISTED = listed_of(Run)
# Columns that a list of runs is sorted by, each with an index.
SORTED = ("datetime_utc", "prompt", "model_id", "task", "scheduler", "status",
          "num_inference_steps", "guidance_scale", "seed", "total_ms", "nfe", "peak_memory_bytes")
# Columns of one index that answers any filter on them without the rows, which are 20 times as long.
FACTS = ("id", "datetime_utc", "status", "comparison_id", "model_id", "task", "scheduler", "device",
         "dtype", "num_inference_steps", "guidance_scale", "seed", "height", "width", "nfe",
         "denoiser_rows", "load_ms", "warm_up_ms", "text_encoding_ms", "denoising_ms",
         "decoding_ms", "total_ms", "peak_memory_bytes", "shared", "parent_id", "reused_from",
         "unmasked_pixels", "changed_unmasked_pixels", "starred", "deleted_utc")
for _column in SORTED:
    Index(f"listed_{_column}", getattr(Run, _column), sqlite_where=LISTED)
FACTS_INDEX = Index("runs_facts", *(getattr(Run, name) for name in FACTS))
Index("runs_starred", Run.starred, sqlite_where=Run.starred)
Index("runs_deleted", Run.deleted_utc, sqlite_where=Run.deleted_utc.is_not(None))
Index("comparisons_datetime_utc", ComparisonRow.datetime_utc)


@checked
class Tag(Base):
    """A word that a person gave a run."""

    __tablename__ = "tags"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True, index=True)


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
    flip: Mapped[float | None] = mapped_column(default=None)
    clip_distance: Mapped[float | None] = mapped_column(default=None)
    clip_score: Mapped[float | None] = mapped_column(default=None)
    clip_model: Mapped[str | None] = mapped_column(default=None)

    def as_dict(self) -> dict[str, float | str | None]:
        return {name: getattr(self, name) for name in MEASURES}


MEASURES = tuple(column.name for column in Distance.__table__.columns if not column.primary_key)
MEASURE_NUMBERS = tuple(name for name in MEASURES if name != "clip_model")
for _measure in MEASURE_NUMBERS:
    Index(f"distances_{_measure}", getattr(Distance, _measure), Distance.run_id)
Index("distances_measures", Distance.run_id, *(getattr(Distance, n) for n in MEASURE_NUMBERS))


@checked
class UserMeasure(Base):
    """What a user's own function said of a run (study/user_measures.py): a value, or the problem
    that it raised. `reference_id` is 0 for a function of one picture."""

    __tablename__ = "user_measures"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    reference_id: Mapped[int] = mapped_column(primary_key=True, default=0)
    value: Mapped[float | None] = mapped_column(default=None)
    problem: Mapped[str] = mapped_column(default="")


@checked
class Timing(Base):
    """One measured repeat of a run, made apart, after warm-up; milliseconds. `node` names the
    device of a cluster that it was measured on."""

    __tablename__ = "timings"

    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    datetime_utc: Mapped[str]
    text_encoding_ms: Mapped[float]
    denoising_ms: Mapped[float]
    decoding_ms: Mapped[float]
    total_ms: Mapped[float]
    node: Mapped[str | None] = mapped_column(default=None)


class Claim(Base):
    """A picture that is being made, by its identity, and who makes it (claims.py)."""

    __tablename__ = "claims"

    identity: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    datetime_utc: Mapped[str]

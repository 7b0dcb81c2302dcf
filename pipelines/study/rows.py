"""Studies in the log of runs: a row each. Their pictures are cells of comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Mapped, mapped_column

from pipelines.checked_rows import checked
from pipelines.log_tables import Base
from pipelines.run_log import RunLog


@checked
class StudyRow(Base):
    """A study as design.py has it: `axes` is a list of {name, values}, `prompts` one of {prompt,
    category}; `status` is running, done, decided or cancelled."""

    __tablename__ = "studies"

    id: Mapped[str] = mapped_column(primary_key=True)
    datetime_utc: Mapped[str]
    base: Mapped[dict[str, Any]]
    axes: Mapped[list[dict[str, Any]]]
    skip: Mapped[list[str]] = mapped_column(default_factory=list)
    prompts: Mapped[list[dict[str, Any]]]
    seeds: Mapped[list[int]]
    reference: Mapped[str | None] = mapped_column(default=None)
    measures: Mapped[list[str]]
    stop_when_decided: Mapped[bool] = mapped_column(default=False)
    status: Mapped[str] = mapped_column(default="running")


def study_row(run_log: RunLog, study_id: str) -> StudyRow | None:
    with run_log.database.session() as session:
        return session.get(StudyRow, study_id)


def study_rows(run_log: RunLog, limit: int = 50) -> Sequence[StudyRow]:
    """The newest first."""
    query = select(StudyRow).order_by(StudyRow.datetime_utc.desc()).limit(limit)
    with run_log.database.session() as session:
        return session.scalars(query).all()


def set_status(run_log: RunLog, study_id: str, status: str) -> None:
    with run_log.database.session(write=True) as session:
        session.get_one(StudyRow, study_id).status = status

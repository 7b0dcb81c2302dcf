"""`python -m pipelines jobs`: the dashboard's queue, and going on with what was interrupted."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from pipelines.cli.output import Json, print_json, print_table, progress
from pipelines.cluster import cluster_of
from pipelines.engine import Engine
from pipelines.errors import Cancelled
from pipelines.jobs import open_queue
from pipelines.queue import Job

POLL_SECONDS = 0.2


def jobs(
    resume_jobs: Annotated[bool, typer.Option(
        "--resume-jobs", help="Go on with the jobs that were interrupted, and wait for them; what "
        "they had finished is not made again.")] = False,
    as_json: Json = False,
) -> None:
    """List the queue: what runs, waits, is paused, or was interrupted when its program ended."""
    queue = open_queue(Engine(cluster=cluster_of()), work=resume_jobs)
    mine = queue.resume_all() if resume_jobs else queue.jobs()
    failed = False
    if resume_jobs:
        with progress(len(mine), "jobs") as bar:
            while any(job.busy for job in mine):
                running = next((job for job in mine if job.status == "running"), None)
                bar.set_postfix_str(f"{running.title[:40]}: {running.fraction:.0%}" if running
                                    else "")
                bar.update(sum(not job.busy for job in mine) - bar.n)
                time.sleep(POLL_SECONDS)
            bar.update(len(mine) - bar.n)
        failed = any(job.status == "failed" for job in mine)
    if as_json:
        print_json([_record(job) for job in mine])
    else:
        print_table(["id", "kind", "status", "done", "asked by", "what", "error"],
                    [[job.id, job.kind, job.status, f"{job.fraction:.0%}",
                      job.row.asked_with, job.title, job.error] for job in mine])
    queue.close()
    if any(job.status == "cancelled" for job in mine) and resume_jobs:
        raise Cancelled("a job was cancelled")
    if failed:
        raise typer.Exit(1)


def _record(job: Job) -> dict:
    row = job.row
    return {"id": job.id, "kind": job.kind, "status": job.status, "done": job.done,
            "total": job.total, "title": job.title, "datetime_utc": row.datetime_utc,
            "asked_with": row.asked_with, "browser": row.browser[:4],
            "comparison_id": row.comparison_id, "run_ids": row.run_ids, "error": job.error}

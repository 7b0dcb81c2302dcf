"""Search the Hub, download a model, look after the local cache."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from pipelines.cli.options import refuse_beside
from pipelines.cli.output import Interrupt, Json, print_json, print_notes, print_table
from pipelines.errors import HubError, RefusedError, RequestError
from pipelines.hub.cache import (
    CachedRevision,
    cached_revisions,
    damaged_entries,
    damaged_files,
    delete_leftovers,
    delete_revisions,
    freed_bytes,
    leftovers,
)
from pipelines.hub.client import Hub
from pipelines.hub.download import Download, Downloads
from pipelines.hub.plan import checkpoint_files, size_text
from pipelines.hub.search import SORTS, HubQuery, HubSearch

Sort = StrEnum("Sort", {name: name for name in SORTS})


def search(
    text: Annotated[str, typer.Argument(help="What the model's name contains.")] = "",
    task: Annotated[str | None, typer.Option(help="Such as text-to-image.")] = None,
    library: Annotated[str, typer.Option(help="'any' for all.")] = "diffusers",
    author: Annotated[str, typer.Option(help="User or organisation.")] = "",
    licence: Annotated[str | None, typer.Option("--licence", "--license", help="Such as mit.")]
    = None,
    gated: Annotated[bool | None, typer.Option(
        "--gated/--open", help="Only gated models, or only open ones.")] = None,
    base_model: Annotated[str, typer.Option(help="What it was made from.")] = "",
    max_gb: Annotated[float | None, typer.Option(
        min=0, help="The most to fetch, in GB (1e9 bytes).")] = None,
    sort: Annotated[Sort, typer.Option()] = Sort.trending,
    page: Annotated[int, typer.Option(min=1)] = 1,
    as_json: Json = False,
) -> None:
    """Find models, each with its size and whether it can be opened here."""
    query = HubQuery(
        text=text, task=task, library=None if library == "any" else library, author=author,
        licence=licence, gated=gated, base_model=base_model, sort=sort.value,
        max_bytes=None if max_gb is None else int(max_gb * 1e9),
    )
    results = HubSearch(Hub(), query)
    models = results.page(page)
    if as_json:
        print_json([asdict(model) for model in models])
    elif not models:
        print("No model fits. Take away a filter, or try --library any.")
    else:
        print_table(
            ["model_id", "pipeline", "size", "licence", "gated", "here", "downloads", "opens here"],
            [[m.model_id, m.pipeline_class, size_text(m.size_bytes), m.licence, m.gated, m.here,
              m.downloads, m.obstacle or "yes"] for m in models],
        )
        if results.has_more(page):
            print(f"More: --page {page + 1}")


def download(
    model_id: Annotated[str, typer.Argument(help="A Hub id: organisation/name.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    variant: Annotated[str | None, typer.Option(help="Weights variant, such as fp16.")] = None,
    file: Annotated[str | None, typer.Option(
        help="Only this .safetensors file of the repository.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Print what would be fetched.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch what a pipeline needs into the Hugging Face cache; broken off, it resumes."""
    hub = Hub()
    details = hub.details(model_id, revision, variant, file)
    plan = details.plan
    if plan is None:
        raise RefusedError(f"{model_id}: {details.model.obstacle}")
    if variant and plan.variant != variant:
        raise RequestError(f"variant: received {variant!r}, accepted none: what is fetched is a "
                           f"{plan.kind}, which has no variants")
    if details.model.gated:
        hub.check_access(model_id)
    record: dict[str, Any] = {
        "model_id": model_id, "revision": plan.revision, "commit": plan.commit, "kind": plan.kind,
        "variant": plan.variant, "size_bytes": plan.size_bytes,
        "files": [asdict(file) for file in plan.files],
    }
    if plan.kind == "checkpoint" and len(checkpoint_files(details.files)) > 1 and not file:
        print(f"{plan.main_file} is the largest file; --file takes another one", file=sys.stderr)
    if details.model.obstacle:
        print_notes(details.model.obstacle)
    if not dry_run:
        job = Downloads().start(hub, plan)
        _watch(job)
        if job.status == "cancelled":
            raise typer.Exit(130)
        if job.status == "failed":
            raise HubError(job.error or "the download failed")
        record["folder"] = str(hub.folder(plan))
    if as_json:
        print_json(record)
    elif dry_run:
        print_table(["file", "size"], [[file.path, size_text(file.size)] for file in plan.files])
        print(f"{plan.file_count}, {size_text(plan.size_bytes)}")
    else:
        print(f"{record['folder']}: {plan.file_count}, {size_text(plan.size_bytes)}, "
              "checksums right")


def _watch(job: Download) -> None:
    """A progress bar; Ctrl-C leaves what is here, so that the next start resumes."""
    with Interrupt() as interrupt, tqdm(total=job.total, unit="B", unit_scale=True,
                                        file=sys.stderr, dynamic_ncols=True) as bar:
        while not job.finished.wait(0.2):
            bar.update(job.done - bar.n)
            bar.set_postfix_str(job.message, refresh=False)
            if interrupt.seen:
                job.pause()
                print("stopped; the same command resumes", file=sys.stderr)
                raise typer.Exit(130)
        bar.update(job.done - bar.n)


def cache(
    context: typer.Context,
    delete: Annotated[list[str] | None, typer.Option(
        metavar="COMMIT", help="Delete this revision; may be repeated.")] = None,
    delete_partial: Annotated[bool, typer.Option(
        help="Delete what downloads that broke off have left.")] = False,
    check: Annotated[bool, typer.Option(
        help="Read every file and compare its checksum.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """List the models in the Hugging Face cache by revision, check or delete them."""
    if delete:
        refuse_beside(context, "delete: does nothing else", {"delete_partial", "check"})
    elif not delete_partial:
        refuse_beside(context, "cache: asks nothing where nothing is deleted", {"yes"})
    folder = Hub().cache_dir
    revisions = cached_revisions(folder)
    if delete:
        _delete(folder, [_commit(text, revisions) for text in delete], yes, as_json)
        return
    if delete_partial:
        parts = leftovers(folder)
        _confirm(f"Delete {size_text(sum(parts.values()))} of unfinished downloads?", yes)
        for model_id in parts:
            delete_leftovers(folder, model_id)
        revisions = cached_revisions(folder)
    records = [
        {"model_id": r.model_id, "commit": r.commit, "refs": list(r.refs), "files": r.files,
         "size_bytes": r.size_bytes, "freed_bytes": r.freed_bytes,
         "last_used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(r.last_used)),
         "folder": str(r.folder), **({"damaged": damaged_files(r)} if check else {})}
        for r in revisions
    ]
    if as_json:
        print_json({"cache": str(folder), "revisions": records, "unfinished": leftovers(folder)})
    elif not records:
        print(f"No model in {folder}. Fetch one: python -m pipelines hub download MODEL_ID")
    else:
        print_table(
            ["model_id", "commit", "refs", "files", "size", "last used", "damaged"],
            [[r["model_id"], r["commit"][:12], ", ".join(r["refs"]), r["files"],
              size_text(r["size_bytes"]), r["last_used"][:10],
              ", ".join(r.get("damaged", ())) or ("no" if check else "")] for r in records],
        )
    print_notes(*(f"not listed: {problem}" for problem in damaged_entries(folder)))
    if not as_json:
        for model_id, size in leftovers(folder).items():
            print(f"unfinished: {model_id}, {size_text(size)}")
    if any(record.get("damaged") for record in records):
        raise typer.Exit(1)


def _delete(folder: Path, commits: list[str], yes: bool, as_json: bool) -> None:
    size = freed_bytes(folder, commits)
    _confirm(f"Delete {len(commits)} revision{'s' * (len(commits) > 1)} and free "
             f"{size_text(size)}?", yes)
    freed = delete_revisions(folder, commits)
    if as_json:
        print_json({"deleted": commits, "freed_bytes": freed})
    else:
        print(f"{size_text(freed)} are free again")


def _commit(text: str, revisions: list[CachedRevision]) -> str:
    """The commit that a text begins, as git has it; raises RequestError."""
    commits = sorted({r.commit for r in revisions if text and r.commit.startswith(text.lower())})
    if len(commits) != 1:
        here = ", ".join(r.commit[:12] for r in revisions[:8]) or "none, the cache is empty"
        raise RequestError(f"delete: received {text!r}, which begins {len(commits)} commits of the "
                           f"cache; accepted one of {here}")
    return commits[0]


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(f"{question} Say --yes: there is nobody to ask")
        typer.confirm(question, abort=True, err=True)

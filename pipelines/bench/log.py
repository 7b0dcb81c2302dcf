"""`python -m pipelines.bench log --rows 1000000`: how long lists of a large run log take.

The rows are made up, in a folder that is removed afterwards: comparisons of 30 cells, with a
distance each, over a year; every seventh run is a copy. They are written as an older version did,
so that bringing such a log up to date is timed, too. A query is asked as a page asks it (first the
rows, then their count) with nothing remembered from the query before. Told are the most seconds of
`--repeats`, and those of the processor, which other programs on the machine change less.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from pipelines.log_tables import SORTED
from pipelines.request import RunRequest
from pipelines.run_log import RunLog
from pipelines.run_pages import FIRST, LAST
from pipelines.schema import migrate

CELLS = 30  # of a comparison
BEFORE = "0011"  # the schema before lists had indexes
SCHEDULERS = ("ddim", "euler", "dpmpp_2m", "unipc", "heun", "euler_a")
WORDS = ("Äpfel", "auf", "dem", "Tisch", "a", "red", "car", "at", "night", "in", "the", "rain",
         "blue", "house", "by", "sea", "two", "cats", "photo", "of", "an", "old", "harbour", "snow")
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "a common word": {"text": "night"},
    "äpfel": {"text": "äpfel"},
    "a word in 1 of 40 prompts: красная": {"text": "красная"},
    "a word in no prompt": {"text": "zebra"},
    "two letters, common: in": {"text": "in"},
    "two letters, rare: 赤い": {"text": "赤い"},
    "one letter: e": {"text": "e"},
    "two words and a scheduler": {"text": "red car", "scheduler": "heun"},
    "a scheduler": {"scheduler": "ddim"},
    "failed": {"status": "failed"},
    "a scheduler of the first hundredth": {"scheduler": "lms"},
    "a scheduler of the last hundredth": {"scheduler": "deis"},
    "a day": {"since": "2026-03-01", "until": "2026-03-01"},
    "steps 10..12": {"where": "steps:10..12"},
    "time<1 (none)": {"where": "time<1"},
    "memory, a thousandth": {"where": "memory>9.99e9"},
    "psnr>30, two of five": {"where": "psnr>30"},
    "psnr>49.99, few": {"where": "psnr>49.99"},
    "psnr>30 of the first hundredth's scheduler": {"where": "psnr>30 scheduler:lms"},
    "not psnr>5": {"where": "-psnr>5"},
    "scheduler:ddim steps<20 psnr>30 tag:best": {
        "where": "scheduler:ddim steps<20 psnr>30 tag:best"},
    "scheduler:ddim steps<20 psnr>30 -night": {
        "where": "scheduler:ddim steps<20 psnr>30 -night"},
    "tag:best": {"where": "tag:best"},
    "is:starred": {"where": "is:starred"},
}


def bench_log(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench log",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--home", type=Path, help="keep the log here, or use the one that is")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        home = options.home or Path(folder)
        if not (home / "runs.sqlite").exists():
            fill(home, options.rows)
        log = RunLog(home)
        print(f"{log.count():,} listed runs, {log.path.stat().st_size / 1e9:.2f} GB")
        times = {name: slowest(options.repeats, log, question)
                 for name, question in questions(log).items()}
    print("seconds (ms)  of the processor")
    for name, seconds in [*times.items(),
                          (f"the most of {len(times)}", tuple(map(max, *times.values())))]:
        print("".join(f"{part * 1000:9.0f}" for part in seconds), name)


def questions(log: RunLog) -> dict[str, Callable[[], Any]]:
    """What is asked, by its name."""
    asked: dict[str, Callable[[], Any]] = {}
    for name, filters in FILTERS.items():
        for sort in ("datetime_utc", "total_ms", "prompt"):
            for where, place in (("first", FIRST), ("last", LAST)):
                asked[f"{name}; by {sort}, {where} page"] = (
                    lambda filters=filters, sort=sort, place=place:
                    log.page(sort=sort, place=place, counted=False, **filters))
        asked[f"{name}; the count, afterwards"] = lambda filters=filters: log.count(**filters)
    for sort in SORTED:
        for ascending in (True, False):
            asked[f"no filter; by {sort} {'up' if ascending else 'down'}, second page"] = (
                lambda sort=sort, up=ascending: log.page(
                    sort=sort, ascending=up, counted=False,
                    place=log.page(sort=sort, ascending=up, counted=False).after))
    newest = log.comparisons(1)[0].id
    asked["the list of comparisons"] = log.comparisons
    asked["a comparison with its runs"] = lambda: (
        log.comparison(newest), log.runs(comparison_id=newest), log.steps_of(newest))
    asked["tries of a picture, for In-paint"] = lambda: log.tries("0" * 64)
    asked["what a model's runs cost"] = lambda: log.costs("postcards")
    asked["the newest picture"] = lambda: log.runs(status="ok", limit=1)
    for column in ("model_id", "scheduler"):
        asked[f"which there are: {column}"] = lambda column=column: log.distinct(column)
    return asked


def slowest(repeats: int, log: RunLog, question: Callable[[], Any]) -> tuple[float, float]:
    """The most seconds of a question, and of the processor, each time with nothing remembered."""
    seconds, busy = [], []
    for _ in range(repeats):
        log.forget()
        start, start_busy = time.perf_counter(), time.process_time()
        question()
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    return max(seconds), max(busy)


def fill(home: Path, rows: int) -> None:
    """Write a log of the schema BEFORE, bring it up to date, and mark some of its runs."""
    home.mkdir(parents=True, exist_ok=True)
    path = home / "runs.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    migrate(path, engine, to=BEFORE)
    engine.dispose()
    start = time.perf_counter()
    with sqlite3.connect(path) as connection:
        for table, records in made_up(rows):
            names = list(records[0])
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
                [tuple(record.values()) for record in records])
    print(f"{rows:,} rows written in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    log = RunLog(home)
    print(f"brought up to date in {time.perf_counter() - start:.0f} s")
    with log.database.session(write=True) as session:
        connection = session.connection()
        for statement in ("INSERT INTO tags SELECT id, 'best' FROM runs WHERE id % 997 = 0",
                          "UPDATE runs SET starred = 1 WHERE id % 991 = 0"):
            connection.exec_driver_sql(statement)


def made_up(rows: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Comparisons with their runs and distances, always the same: tables and rows for them."""
    dice = random.Random(0)
    for first in range(0, rows, CELLS):
        name = f"{first:012x}"
        made = datetime.datetime(2026, 1, 1) + datetime.timedelta(
            seconds=first * 365 * 86_400 / rows)
        prompt = " ".join(dice.choices(WORDS, k=dice.randint(6, 16)))
        if dice.random() < 0.025:
            prompt += " КРАСНАЯ машина"
        if first % (CELLS * 1000) == 0:
            prompt += " 赤い車"
        base = RunRequest(prompt=prompt).model_dump(mode="json")
        yield "comparisons", [{
            "id": name, "datetime_utc": made.isoformat(timespec="milliseconds") + "+00:00",
            "base": json.dumps(base), "axes": "[]", "status": "ok", "skip": "[]"}]
        runs = [_run(dice, first + cell + 1, name, made, prompt, base, first / rows)
                for cell in range(min(CELLS, rows - first))]
        yield "runs", runs
        yield "distances", [{
            "run_id": run["id"], "reference_id": first + 1, "rms_latents": dice.random(),
            "psnr": dice.uniform(5, 50), "ssim": dice.random()}
            for run in runs if run["reused_from"] is None and run["id"] % 5]


def _run(
    dice: random.Random, number: int, comparison: str, made: datetime.datetime, prompt: str,
    base: dict[str, Any], share: float,
) -> dict[str, Any]:
    ok = dice.random() > 0.03
    steps = dice.randint(4, 50)
    step_ms = [round(dice.uniform(20, 60), 3) for _ in range(steps)]
    scheduler = ("lms" if share < 0.01 else "deis" if share > 0.99 else dice.choice(SCHEDULERS))
    moment = made + datetime.timedelta(seconds=number % CELLS)
    return {
        "id": number, "status": "ok" if ok else dice.choice(["failed", "cancelled"]),
        "datetime_utc": moment.isoformat(timespec="milliseconds") + "+00:00",
        "comparison_id": comparison, "axes": json.dumps({"seed": number % CELLS}),
        "model_id": dice.choice(["postcards", "postcards", "some-one/a-model", "another/model"]),
        "task": "text-to-image", "prompt": prompt,
        "negative_prompt": dice.choice(["", "", "blurry, low quality"]), "scheduler": scheduler,
        "num_inference_steps": steps, "guidance_scale": dice.choice([1.0, 3.0, 5.0, 7.5]),
        "seed": dice.randrange(2**32), "height": 512, "width": 512,
        "request": json.dumps(base), "nfe": steps if ok else None,
        "denoiser_rows": 2 * steps if ok else None,
        "total_ms": round(sum(step_ms), 3) if ok else None, "step_ms": json.dumps(step_ms),
        "denoising_ms": round(sum(step_ms) * 0.9, 3) if ok else None,
        "peak_memory_bytes": dice.randrange(10**10) if ok else None, "device": "cpu",
        "dtype": "float32", "environment": json.dumps({"torch": "2.13.0", "diffusers": "0.42.1"}),
        "notes": "[]", "shared": 0, "image_sha256": f"{dice.getrandbits(256):064x}" if ok else None,
        "identity": f"{dice.getrandbits(256):064x}", "steps_shown": "[]",
        "reused_from": number - 1 if number % 7 == 0 and number % CELLS != 1 else None,
    }

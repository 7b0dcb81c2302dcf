"""Queries of runs, pages of them, and what they cost in memory."""

import itertools
import json
import random
import tracemalloc

import pytest
from test_run_log import a_run

from pipelines import run_pages
from pipelines.errors import RequestError
from pipelines.log_tables import ComparisonRow, Distance, Run, Tag, utc_now
from pipelines.run_log import RunLog
from pipelines.run_pages import FIRST, LAST
from pipelines.run_query import parse_query, quoted
from pipelines.sheet.cells import runs_csv

PROMPTS = ("Äpfel auf dem Tisch", "eine КРАСНАЯ машина", "50% red_car", "日本の車", "a [b] *c?",
           "", "x", 'say "hi"', "a red car at night")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """300 runs with everything that can be asked for, always the same."""
    log = RunLog(tmp_path_factory.mktemp("log"))
    dice = random.Random(0)
    with log.database.session(write=True) as session:
        session.add(ComparisonRow(id="abc", datetime_utc=utc_now(), base={}, axes=[]))
        session.flush()
        for number in range(300):
            run = a_run(
                prompt=dice.choice(PROMPTS), negative_prompt=dice.choice(["", "Clouds", "RED"]),
                scheduler=dice.choice(["ddim", "euler"]), guidance_scale=dice.choice([1.0, 7.5]),
                num_inference_steps=dice.randint(1, 40),
                status=dice.choice(["cancelled", "failed"]),
                datetime_utc=f"2026-0{dice.randint(1, 9)}-1{number % 9}T10:00:00.000+00:00",
                total_ms=dice.choice([None, dice.uniform(1, 99)]), starred=number % 7 == 0,
                reused_from=1 if number % 50 == 49 else None,
                comparison_id="abc" if number % 10 == 9 else None,
                deleted_utc=utc_now() if number % 40 == 39 else None)
            session.add(run)
            session.flush()
            if number % 3:
                session.add(Distance(run_id=run.id, reference_id=1, psnr=dice.uniform(5, 50)))
            if number % 11 == 0:
                session.add(Tag(run_id=run.id, tag=dice.choice(["best", "so so"])))
    return log


def in_both(text):
    return lambda run, *_: text in run.prompt.lower() or text in run.negative_prompt.lower()


QUERIES = {
    "": lambda *_: True,
    "äpfel": in_both("äpfel"),
    "красная": in_both("красная"),
    "ТИСЧ": in_both("тисч"),
    "red": in_both("red"),
    "-red": lambda run, *_: not in_both("red")(run),
    '"red car"': in_both("red car"),
    "red car": lambda run, *_: in_both("red")(run) and in_both("car")(run),
    "車": in_both("車"),
    "日本": in_both("日本"),
    "x": in_both("x"),
    "%": in_both("%"),
    "_": in_both("_"),
    "zq": in_both("zq"),
    '"[b]"': in_both("[b]"),
    '"*c?"': in_both("*c?"),
    r'"\"hi"': in_both('"hi'),
    "prompt:red": lambda run, *_: "red" in run.prompt.lower(),
    "negative_prompt:red,clouds": lambda run, *_: run.negative_prompt != "",
    "scheduler:ddim steps<20 psnr>30 tag:best": lambda run, psnr, tags: (
        run.scheduler == "ddim" and run.num_inference_steps < 20 and (psnr or 0) > 30
        and "best" in tags),
    "steps:10..20": lambda run, *_: 10 <= run.num_inference_steps <= 20,
    "steps:3,5,38..": lambda run, *_: run.num_inference_steps in (3, 5, 38, 39, 40),
    "steps!=3": lambda run, *_: run.num_inference_steps != 3,
    "guidance=7.5 -status:failed": lambda run, *_: (
        run.guidance_scale == 7.5 and run.status == "cancelled"),
    "scheduler:d*,x*": lambda run, *_: run.scheduler == "ddim",
    "time:none": lambda run, *_: run.total_ms is None,
    "-time>50": lambda run, *_: not (run.total_ms and run.total_ms > 50),
    "psnr:..20": lambda run, psnr, _: psnr is not None and psnr <= 20,
    "psnr:none": lambda run, psnr, _: psnr is None,
    "-psnr>20": lambda run, psnr, _: not (psnr and psnr > 20),
    'tag:"so so"': lambda run, _, tags: "so so" in tags,
    "is:starred": lambda run, *_: run.starred,
    "date:2026-02": lambda run, *_: run.datetime_utc.startswith("2026-02"),
    "date>2026-08 date<=2026-09-12": lambda run, *_: "2026-09" < run.datetime_utc < "2026-09-13",
    "date:2026-02..2026-03": lambda run, *_: "2026-02" < run.datetime_utc < "2026-04",
}


@pytest.fixture(params=["few", "walk", "whole"])
def way(request, monkeypatch):
    """Each way to a page, whatever the number of runs: a list, a walk, the whole index."""
    if request.param != "few":
        for module in ("run_pages", "run_filter", "run_log"):
            monkeypatch.setattr(f"pipelines.{module}.FEW", 0)
        monkeypatch.setattr(run_pages, "WALK", 150 if request.param == "walk" else 1)


def test_a_query_finds_what_it_says(log, way):
    psnr, tags = {}, {}
    with log.database.session() as session:
        for distance in session.query(Distance):
            psnr[distance.run_id] = distance.psnr
        for tag in session.query(Tag):
            tags.setdefault(tag.run_id, []).append(tag.tag)
        listed = [run for run in session.query(Run).all()
                  if run.reused_from is None and run.deleted_utc is None]
    log.forget()
    empty = 0
    for query, test in QUERIES.items():
        expected = [run.id for run in reversed(listed)
                    if test(run, psnr.get(run.id), tags.get(run.id, ()))]
        empty += not expected
        assert [run.id for run in log.stream(where=query)] == expected, query
        page = log.page(where=query, size=400)
        assert [run.id for run in page.runs] == expected, query
        if query and not page.more:
            assert page.count == len(expected), query
    assert empty <= 3


@pytest.mark.parametrize("query", ["", "scheduler:ddim", "red"])
def test_pages_from_both_ends_show_each_run_once_in_order(log, way, query):
    log.forget()
    for sort, ascending in itertools.product(("id", "prompt", "total_ms"), (True, False)):
        every = [run.id for run in log.page(where=query, sort=sort, ascending=ascending,
                                            size=400).runs]
        assert len(every) > 20 and len(set(every)) == len(every)
        forwards, backwards = [], []
        place = FIRST
        while place:
            page = log.page(where=query, sort=sort, ascending=ascending, place=place, size=60)
            forwards += [run.id for run in page.runs]
            assert (page.before is None) == (place is FIRST)
            place = page.after
        place = LAST
        while place:
            page = log.page(where=query, sort=sort, ascending=ascending, place=place, size=60)
            backwards[:0] = [run.id for run in page.runs]
            assert (page.after is None) == (place is LAST)
            place = page.before
        assert forwards == backwards == every, (sort, ascending)


def test_copies_and_the_bin_are_listed_where_they_are_asked_for(log):
    assert all(run.reused_from is None and run.deleted_utc is None for run in log.stream())
    assert len(list(log.stream(where="is:deleted"))) == 7
    assert any(run.reused_from for run in log.stream(where="comparison:abc"))
    assert len(list(log.stream(comparison_id="abc"))) == 30


@pytest.mark.parametrize("query, marked, accepted", [
    ("shceduler:ddim", "shceduler", "scheduler is"),
    ("a steps:many", "many", "10..20"),
    ("steps:1,x", "x", "a number"),
    ("scheduler<3", "<", "accepted :"),
    ("a tag:", "tag:", "no value"),
    ("date:yesterday", "yesterday", "2026-11-26"),
    ("date:2026-02-30", "2026-02-30", "a date"),
    ("date:2026-13..2026-14", "2026-13..2026-14", "a date"),
    ("is:nice", "nice", "starred"),
    ('red "car', '"car', "quotation mark"),
    ('scheduler:"a"b', '"a"b', "comma"),
    ("steps:99999999999999999999999e999", "99999999999999999999999e999", "can hold"),
    ("a -", "-", "a word"),
])
def test_a_mistake_is_marked(log, query, marked, accepted):
    with pytest.raises(RequestError) as error:
        log.page(where=query)
    reason, text, carets = str(error.value).splitlines()
    assert accepted in reason and text == query
    assert query[carets.index("^") :][: carets.count("^")] == marked


def test_any_text_is_read_or_refused_and_a_quoted_value_comes_back(log):
    dice = random.Random(1)
    signs = ["steps", "psnr", "tag", "is", ":", "<", ">=", "!=", "..", ",", '"', "\\", "-", " ",
             "3", "1e5", "é", "車", "*", "[", "]", "?", "%", "'", "\0", "\n", "NEAR", "AND", "^"]
    refused = 0
    for _ in range(150):
        query = "".join(dice.choices(signs, k=dice.randint(1, 7)))
        try:
            log.page(where=query)
        except RequestError:
            refused += 1
        if "\0" in query:
            continue
        (condition,) = parse_query(f"tag:{quoted(query)}")
        assert condition.alternatives == ((("is", query),),)
    assert 20 < refused < 130


def test_exports_hold_a_few_runs_in_memory(tmp_path):
    """600 kB of prompts a batch; the whole log has ten times that."""
    log = RunLog(tmp_path)
    with log.database.session(write=True) as session:
        session.add_all([a_run(prompt=f"{number} " + "x" * 6000) for number in range(1000)])
    monkey = run_pages.BATCH
    try:
        run_pages.BATCH = 100
        next(log.stream())
        tracemalloc.start()
        length = sum(len(line) for line in runs_csv(log.stream()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        run_pages.BATCH = monkey
        tracemalloc.stop()
    assert length > 6_000_000 and peak < 3_000_000


def test_the_command_line_takes_a_query(run, tmp_path):
    log = RunLog(tmp_path / "home")
    for scheduler, steps in (("ddim", 5), ("ddim", 30), ("euler", 5)):
        log.add(a_run(scheduler=scheduler, num_inference_steps=steps))
    code, out, _ = run("runs", "--where", "scheduler:ddim steps<20", "--json")
    assert code == 0 and [row["id"] for row in json.loads(out)] == [1]
    code, _, error = run("runs", "--where", "scheduler:ddim stepz<20")
    assert code == 2 and "steps is" in error and error.splitlines()[-1].strip() == "^^^^^"

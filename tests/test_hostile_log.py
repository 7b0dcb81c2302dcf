"""A log with anything in it: no row takes a list, a page or an export down."""

import json
import random
import shutil
import sqlite3

import pytest
from apptest import html, page

from dashboard import state
from pipelines import Comparison, Engine, RunRequest, cli, measuring
from pipelines.analysis import methods
from pipelines.comparison import forecast, logged_comparison
from pipelines.errors import PipelineError, RequestError, StorageError
from pipelines.flags import flags
from pipelines.log_tables import Run
from pipelines.run_log import RunLog
from pipelines.run_pages import FIRST, LAST, Place
from pipelines.sheet.cells import Results, as_json, cell_record, runs_csv
from pipelines.sheet.exports import EXPORTS
from pipelines.sheet.live import LiveComparison

ROWS, COMPARISONS = 240, 60
BASE = RunRequest(prompt="a red car on a road", num_inference_steps=2)
WIDE = Comparison.parse(BASE, [f"seed=0..{ROWS - 1}"])

# What a row hangs on, and whether it is in the bin: anything that stands there puts it in.
KEPT = ("id", "comparison_id", "parent_id", "reused_from", "deleted_utc")
REQUEST = BASE.model_dump(mode="json")
HOSTILE = (
    None, "", "{", "[", "[" * 100_000, "null", "5", "true", '"text"', "{}", "[]", "[null]", "[[]]",
    '{"a": NaN}', "[1e999]", '["\\ud800"]', "1" * 5000, "abc", "../../../etc/passwd", "\0",
    "<script>alert(1)</script>", "车 🚗", -1, 2**63 - 1, 9e999, -9e999, 0.5, b"\xff\xfe\x00", b"",
    '{"prompt": 5}', '{"self": 1, "scheduler": []}', '{"a": ' * 400 + "1" + "}" * 400,
    '[{"name": "seed"}]', '[{"name": "seed", "values": 5}]', '[{"name": 5, "values": [1]}]',
    '[{"name": "seed", "values": [[1]]}]', '[{"name": "seed+height", "values": [[1], 2]}]',
    '[{"name": "prompt_replace", "values": ["a"]}]', '[{"name": "loras", "values": [[{}]]}]',
    '["seed>1"]', '["seed>x"]', "weird status", "newer_scheduler",
    *(json.dumps(REQUEST | change) for change in (
        {"scheduler": "newer_scheduler"}, {"field_of_a_newer_version": 1}, {"seed": -5},
        {"seed": 10**400}, {"image": 5}, {"image": "../../x", "task": "image-to-image"},
        {"strength": "high", "image": "ab"}, {"loras": [[["x"]]]}, {"model_id": None},
        {"revision": ["main"]}, {"scheduler_options": {"solver_order": "x"}}, {"task": "video"})),
)


def fill(engine):
    """A log of whole rows, and of as many that were written over at random: always the same."""
    runs = engine.compare(Comparison.parse(BASE, ["seed=0,1"]), comparison_id="whole")
    measuring.measure(engine, Comparison.parse(BASE, ["seed=0,1"]), runs, "seed=0")
    measuring.measure_timings(engine, runs, 1)
    dice = random.Random(0)
    with sqlite3.connect(engine.run_log.path) as log:
        names = [row[1] for row in log.execute("PRAGMA table_info(runs)")]
        # The tables refuse NULL in most columns; a damaged file does not.
        log.execute("PRAGMA writable_schema = ON")
        log.execute("UPDATE sqlite_master SET sql = replace(sql, ' NOT NULL', '') "
                    "WHERE name IN ('runs', 'comparisons', 'distances', 'timings')")
    with sqlite3.connect(engine.run_log.path) as log:
        wide = {"id": "wide", "axes": json.dumps([axis.as_dict() for axis in WIDE.axes])}
        copy(log, "comparisons", "whole", wide)
        for number in range(ROWS):
            values = {"comparison_id": "wide", "axes": json.dumps({"seed": number})}
            written = dice.sample(names, dice.choice([1, 1, 2, 5])) if number % 3 else ["request"]
            values |= {name: dice.choice(HOSTILE) for name in written if name not in KEPT}
            copy(log, "runs", runs[number % 2].id, values)
        for number in range(COMPARISONS):
            values = {"id": f"bad{number}"}
            for name in dice.sample(["base", "axes", "skip", "status", "reference"], 2):
                values[name] = dice.choice(HOSTILE)
            copy(log, "comparisons", "whole", values | {"datetime_utc": f"20{number}"})
        for name in ("rms_latents", "psnr", "clip_model"):
            log.execute(f"UPDATE distances SET {name} = ?", (dice.choice(["x", b"\xff", 9e999]),))
        log.execute("UPDATE timings SET total_ms = 'x' WHERE id = 1")
        log.execute("INSERT INTO claims VALUES ('x', '../../x', 'y')")


def copy(log, table, row_id, values):
    """A row again, with other values and, unless they name one, another id."""
    columns = [row[1] for row in log.execute(f"PRAGMA table_info({table})")]
    row = dict(zip(columns, log.execute(f"SELECT * FROM {table} WHERE id = ?",
                                        (row_id,)).fetchone(), strict=True))
    row |= {"id": None} | values
    log.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()))


@pytest.fixture(scope="module")
def hostile(session_engine, tmp_path_factory):
    """The folder of a hostile log."""
    engine = Engine(tmp_path_factory.mktemp("hostile"), device="cpu")
    engine.registry = session_engine.registry
    fill(engine)
    return engine.home


@pytest.fixture
def log_engine(hostile, session_engine):
    engine = Engine(hostile, device="cpu")
    engine.registry = session_engine.registry
    return engine


def test_lists_hold_every_row_and_say_which_are_damaged(log_engine):
    log = log_engine.run_log
    runs = log.runs()
    assert len(runs) == log.count() == ROWS + 2
    damaged = [run for run in runs if run.damage]
    assert 100 < len(damaged) < ROWS
    assert all(run.status == "failed" and "damaged: " in run.error for run in damaged)
    assert not any(run.damage for run in log.runs(comparison_id="whole"))
    for name in ("model_id", "scheduler", "status", "prompt"):
        assert log.distinct(name)
    for run in runs:  # each value is what its column says
        for name, value in run.as_dict().items():
            assert not isinstance(value, bytes), name
    assert len(log.comparisons(100)) == COMPARISONS + 2
    assert all(isinstance(row.summary, str) for row in log.comparisons(100))
    text = "".join(runs_csv(runs)) + as_json([run.as_dict() for run in runs])
    json.loads(as_json([run.as_dict() for run in runs]), parse_constant=pytest.fail)
    text.encode()
    assert log.tries("ab") == []
    for sort in Run.__table__.columns.keys():  # noqa: SIM118
        log.runs(sort=sort, limit=3)
    assert forecast([BASE], log, log_engine.registry).based_on > 0


def test_an_operation_on_a_row_raises_only_errors_of_ours(log_engine):
    unreadable = 0
    for run in log_engine.run_log.runs():
        cell_record(run.axes, run, log_engine.pictures)
        run.copy_for("other", {})
        try:
            run.valid_request()
        except RequestError as error:
            assert f"run {run.id}: " in str(error)
            unreadable += 1
            measuring.measure_timings(log_engine, [run], 1)
    assert unreadable > 10
    opened = 0
    for row in log_engine.run_log.comparisons(100):
        try:
            Results.of_log(log_engine, row.id)
            opened += 1
        except PipelineError as error:
            assert str(error)
    assert 2 <= opened < COMPARISONS


@pytest.mark.parametrize("name", ["2" * 19, "../../x", "a" * 63, "A" * 64])
def test_a_name_of_a_file_that_is_no_hash_is_damage(engine, name):
    """What names a file becomes a path, which is also removed."""
    run = engine.run(BASE)
    columns = [column for column in Run.__table__.columns.keys()  # noqa: SIM118
               if column.endswith("_sha256") or column == "identity"]
    assert len(columns) == 5
    with sqlite3.connect(engine.run_log.path) as log:
        for column in columns:
            copy(log, "runs", run.id, {column: name})
    damaged = [run for run in engine.run_log.runs() if run.damage]
    assert len(damaged) == len(columns)
    for column, run in zip(reversed(columns), damaged, strict=True):
        assert getattr(run, column) is None and f"{column}: received" in run.error


def test_exports_and_measures_of_a_sheet_with_damaged_cells(log_engine):
    row, comparison, runs = logged_comparison(log_engine.run_log, "wide")
    assert sum(run is not None for run in runs) > ROWS / 2
    results = Results.of_log(log_engine, "wide")
    for export in EXPORTS.values():
        assert export.write(results)
    json.loads(EXPORTS["json"].write(results), parse_constant=pytest.fail)
    look = LiveComparison(log_engine, "wide").look()
    assert len(look.records) == ROWS
    assert methods(comparison, runs, look.distances, look.timings)
    flags(comparison, runs, log_engine.pictures)
    measuring.clip_scores(log_engine, runs)
    measuring.distances(log_engine, comparison, runs, "converged")
    measuring.floor(log_engine, runs)
    measuring.references_to_make(log_engine, comparison, runs, "converged")
    assert log_engine.in_log(Comparison.parse(BASE, ["seed=0,1"])) == [0, 1]


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_the_command_line_prints_a_hostile_log(hostile, monkeypatch, capsys, form):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(hostile))
    with pytest.raises(SystemExit) as ended:
        cli.main(["runs", "--format", form])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) > ROWS
    assert ("damaged: " in err) if form == "table" else ("damaged: " in out)


def test_pages_show_a_hostile_log(hostile, home):
    shutil.copytree(hostile, home, dirs_exist_ok=True)
    state.st.cache_resource.clear()
    runs = RunLog(home).runs()
    damaged = next(run for run in runs if run.damage)
    unreadable = next(run for run in runs if not run.damage and "newer" in str(run.request))
    for place, run in ((FIRST, damaged), (Place("2026", 100), runs[-1]), (LAST, unreadable)):
        app = page("runs", {"runs.place": place, state.OPENED_RUN: run.id})
        assert not app.exception
        assert ("of the log is damaged" in html(app)) == (run is damaged)
        assert ("settings cannot be used again" in html(app)) == (run is unreadable)
    for comparison_id in ("wide", "bad0", "bad1"):
        app = page("compare", comparison=comparison_id)
        assert not app.exception
    assert not page("generate").exception


def test_a_damaged_file_is_one_line(tmp_path, engine):
    """Cut short, written over at random, or a folder: it opens, or says why not."""
    engine.compare(Comparison.parse(BASE, ["seed=0,1"]))
    engine.run_log.database._engine.dispose()
    data = engine.run_log.path.read_bytes()
    dice, refused = random.Random(0), 0
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        damaged = bytearray(data[: dice.randrange(len(data))] if number % 2 else data)
        for _ in range(dice.choice([1, 20, 2000])):
            if damaged:
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        (folder / "runs.sqlite").write_bytes(damaged)
        try:
            log = RunLog(folder)
            Results.gather(engine, WIDE, [None] * ROWS)
            list(runs_csv(log.runs()))
            log.comparisons()
            log.count()
        except StorageError as error:
            refused += 1
            assert "runs.sqlite" in str(error) and "\n" not in str(error)
    assert 5 < refused < 40
    (tmp_path / "folder" / "runs.sqlite").mkdir(parents=True)
    with pytest.raises(StorageError, match="unable to open"):
        RunLog(tmp_path / "folder")


def test_a_log_that_cannot_be_used_ends_the_command_line_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path))
    (tmp_path / "runs.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(SystemExit) as ended:
        cli.main(["runs"])
    assert ended.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1

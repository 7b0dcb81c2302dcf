"""What nobody foresaw: one line for the user, the traceback in a file; hostile command lines."""

import itertools
import random
import sqlite3
import sys

import pytest
import typer
from apptest import component_data, html, page
from PIL import Image

from pipelines import cli, error_log
from pipelines.errors import RequestError


def deep() -> None:
    deep()


def raise_(error: Exception):
    def call(*_: object, **__: object) -> None:
        raise error

    return call


@pytest.mark.parametrize("error", [
    ValueError("a\nb"), MemoryError(), OSError(28, "No space left on device"), KeyError("x"),
    sqlite3.OperationalError("disk I/O error"), UnicodeError("\udcff"),
], ids=lambda error: type(error).__name__)  # fmt: skip
def test_an_error_that_nobody_foresaw_is_one_line_and_a_traceback_in_a_file(
        run, tmp_path, monkeypatch, error):
    monkeypatch.setattr("pipelines.cli.runs.print_json_list", raise_(error))
    code, out, err = run("runs", "--json")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1, err
    assert err.startswith(f"error: {type(error).__name__}")
    log = tmp_path / "home" / error_log.NAME
    assert str(log) in err
    assert "Traceback" in log.read_text("utf-8") and "in raise_" not in err


def test_endless_recursion_is_one_line(run, monkeypatch):
    monkeypatch.setattr("pipelines.cli.runs.print_json_list", lambda _: deep())
    code, _, err = run("runs", "--json")
    assert code == 1 and len(err.splitlines()) == 1 and "RecursionError" in err


def test_a_data_folder_that_cannot_be_written_is_one_line(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "file" / "home"))
    code, out, err = run("runs")
    assert code in (1, 2) and out == "" and str(tmp_path / "file") in err
    monkeypatch.setattr("pipelines.cli.runs.Engine", raise_(ValueError("x")))
    code, _, err = run("runs")
    assert code == 1
    assert err.splitlines()[-1] == (
        "error: ValueError: x (not foreseen; its traceback is on standard error)")
    assert "Traceback" in err


def test_the_log_of_errors_stays_small(home, monkeypatch):
    monkeypatch.setattr(error_log, "LARGEST", 1000)
    for _ in range(20):
        error_log.one_line(ValueError("x" * 200))
    files = list(home.glob(f"{error_log.NAME}*"))
    assert len(files) == 2 and all(path.stat().st_size < 2000 for path in files)


def test_an_error_of_ours_needs_no_log(home):
    assert error_log.one_line(RequestError("seed: received x")) == "seed: received x"
    assert not (home / error_log.NAME).exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full")
def test_a_full_disk_behind_standard_output_is_one_line(tmp_path):
    import os
    import subprocess

    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-m", "pipelines", "schedulers"], stdout=full,
                               stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "CONTACT_SHEET_HOME": str(tmp_path)})
    assert ended.returncode == 1
    assert "No space left" in ended.stderr and len(ended.stderr.splitlines()) == 1


def caught(app, home, name: str) -> None:
    """The page shows the error as one line and says where its traceback is."""
    assert not app.exception
    assert f"ZeroDivisionError: {name} (not foreseen; its traceback is in" in html(app)
    assert str(home / error_log.NAME) in html(app)
    assert f"ZeroDivisionError: {name}" in (home / error_log.NAME).read_text("utf-8")


@pytest.mark.parametrize(("name", "place"), [
    ("runs", "dashboard.runs.opened_run"), ("generate", "dashboard.form.model.model_control"),
    ("compare", "dashboard.form.axes.comparison_controls"), ("hub", "dashboard.hub.page.hub_page"),
    ("inpaint", "dashboard.state.draft"),
])  # fmt: skip
def test_a_page_that_raises_shows_one_line(filled, tmp_path, monkeypatch, name, place):
    monkeypatch.setattr(place, raise_(ZeroDivisionError("a page")))
    caught(page(name), tmp_path, "a page")


def test_a_fragment_that_raises_leaves_its_page(filled, tmp_path, monkeypatch):
    monkeypatch.setattr("dashboard.components.queue.downloads_panel",
                        raise_(ZeroDivisionError("a fragment")))
    app = page("runs")
    caught(app, tmp_path, "a fragment")
    assert component_data(app, "contact_sheet.run_table")["rows"]


def test_a_callback_that_raises_leaves_its_page(filled, tmp_path, monkeypatch):
    app = page("runs", {"opened_run": 3})
    monkeypatch.setattr("dashboard.runs.default_strength", raise_(ZeroDivisionError("a callback")))
    app.button(key="drawer.input.3").click().run()
    caught(app, tmp_path, "a callback")
    assert app.title


HOSTILE = (
    "", " ", "-1", "1e400", "nan", "inf", "9" * 5000, "٣", "\0", "\n", "a\nb", "\udcff",
    "[" * 10_000, '{"a":' * 3000, "../../x", "/", "~nobody-here/x", "a" * 300, "🚗" * 100, "=1+1",
    "1,2,..,1" + "0" * 30, "1..2..3", "0..1/0", "true", "None", "||", "skip:", "--", "%s%n",
    "a=b=c", "seed", "seed=", "seed=1,", "=", "+=", "1,1", "1,1,1,1", "9" * 19, "/dev/null",
    "x.png", "a,b=c", "seed>", "1" * 400 + "." + "1" * 400,
)  # fmt: skip
# So much that each command gets to its end with nothing to do: its output cannot be written.
WHOLE = {
    "generate": ["x", "--output=no/such/folder.png"],
    "compare": ["x", "--axis=seed=0,1", "--output=no/such/folder.png"],
    "inpaint": ["x.png", "--mask=x.png", "--output=no/such/folder.png"],
    "segment": ["x.png", "--point=1,1", "--output=no/such/folder.png"],
    "runs": [], "models": [], "schedulers": [], "cache": [],
}  # fmt: skip


def command_lines() -> list[list[str]]:
    """Each option of each command with a hostile value, and each value for axes, a rule, a recipe
    and a stage."""
    group = typer.main.get_command(cli.app)
    commands = {**group.commands, "cache": group.commands["hub"].commands["cache"]}
    values = itertools.cycle(random.Random(0).sample(HOSTILE, len(HOSTILE)))
    lines = []
    for name, whole in WHOLE.items():
        start = ["hub", name] if name == "cache" else [name]
        for option in commands[name].params:
            if option.param_type_name == "argument":
                lines.append([*start, next(values), *whole[1:]])
            elif option.is_flag:
                lines.append([*start, *whole, f"{option.opts[0]}={next(values)}"])
            else:
                lines.append([*start, *whole, f"{max(option.opts, key=len)}={next(values)}"])
    for value in HOSTILE:
        lines += [["compare", "x", f"--axis=guidance_scale={value}", *WHOLE["compare"][2:]],
                  ["compare", "x", f"--axis=seed={value}", *WHOLE["compare"][2:]],
                  ["compare", *WHOLE["compare"], f"--skip=seed={value}"],
                  ["compare", f"--recipe={value}", "--output=no/such/folder.png"],
                  ["generate", *WHOLE["generate"], f"--then={value}"]]
    return lines


def test_hostile_command_lines_end_with_a_line_and_no_traceback(run, tmp_path):
    Image.new("RGB", (16, 16), "white").save(tmp_path / "x.png")
    lines = command_lines()
    assert len(lines) > 300
    for line in lines:
        code, out, err = run(*line)
        assert code in (0, 1, 2), line
        assert "Traceback" not in out + err, line
        errors = [text for text in err.splitlines() if text.startswith("error:")]
        assert len(errors) == (code != 0), (line, err)

"""Two comparisons beside each other, cell by cell."""

import csv
import json

import pytest

from pipelines import Comparison, RunRequest, measuring
from pipelines.errors import RequestError
from pipelines.sheet.beside import beside
from pipelines.sheet.beside_page import page_of, summary

BASE = RunRequest(prompt="a red car", num_inference_steps=2)


@pytest.fixture
def two(engine):
    """Schedulers, and schedulers by seeds: they share ddim and euler at seed 0."""
    first = Comparison.parse(BASE, ["scheduler=ddim,euler,dpmpp_2m"])
    runs = engine.compare(first, comparison_id="first", reference="scheduler=ddim")
    measuring.measure(engine, first, runs, "scheduler=ddim")
    second = Comparison.parse(BASE.changed(guidance_scale=2.0),
                              ["num_inference_steps+scheduler=2+ddim,2+euler,3+euler", "seed=0,1"])
    engine.compare(second, comparison_id="second", shared=True)
    return engine


def test_cells_of_equal_coordinates_stand_in_one_row(two):
    found = beside(two, "first", "second")
    assert found.differences == {"guidance_scale": (BASE.guidance_scale, 2.0),
                                 "reference": ("scheduler=ddim", None)}
    both = [row.coordinates for row in found.rows if row.left and row.right]
    assert both == [{"scheduler": name, "num_inference_steps": 2, "seed": 0}
                    for name in ("ddim", "euler")]
    left, right = found.only
    assert [row.coordinates["scheduler"] for row in left] == ["dpmpp_2m"]
    assert [(row.coordinates["num_inference_steps"], row.coordinates["seed"])
            for row in right] == [(2, 1), (2, 1), (3, 0), (3, 1)]
    euler = found.rows[1]
    assert euler.left.measures["psnr"] > 0 and "psnr" not in euler.right.measures
    assert "total_ms" in euler.left.measures and "total_ms" not in euler.right.measures  # shared
    assert summary(found) == ("2 cells of both, of which 0 are the same picture bit for bit. "
                              "1 only in first. 4 only in second.")


def test_the_same_comparison_made_twice_differs_in_nothing(two):
    two.compare(Comparison.parse(BASE, ["scheduler=ddim,euler"]), comparison_id="again")
    run = two.run_log.runs(comparison_id="again", scheduler="euler")[0]
    two.run_log.update(run, environment={**run.environment, "torch": "1.0"})
    found = beside(two, "again", "first")
    assert [row.same_picture for row in found.rows] == [True, True, False]
    assert set(found.differences) == {"reference", "torch"}
    assert found.differences["torch"][0].endswith(", 1.0")
    page = page_of(found, two.thumbnails).decode()
    assert page.count("data:image/png") == 5 and "no such cell" in page


def test_texts_of_people_are_no_markup(engine):
    for name, prompt in (("one", "<script>alert(1)</script>"), ("two", "plain")):
        engine.compare(Comparison.parse(BASE.changed(prompt=prompt), ["seed=0"]),
                       comparison_id=name)
    page = page_of(beside(engine, "one", "two"), engine.thumbnails).decode()
    assert "<script" not in page and "&lt;script&gt;" in page


def test_the_command_line_tells_and_writes_it(run, tmp_path, two, monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(two.home))
    code, out, err = run("beside", "first", "second", "--html", "b.html", "--csv", "b.csv")
    assert code == 0 and "guidance_scale" in out and "only in first" in out, err
    assert (tmp_path / "b.html").read_text("utf-8").startswith("<!doctype html>")
    rows = list(csv.DictReader((tmp_path / "b.csv").open(encoding="utf-8")))
    assert len(rows) == 7 and rows[2]["state_b"] == "no such cell"
    code, out, _ = run("beside", "first", "second", "--json")
    assert code == 0 and len(json.loads(out)["cells"]) == 7
    code, _, err = run("beside", "first", "none")
    assert code == 2 and "comparison none is not in the log" in err
    code, _, err = run("beside", "first", "first")
    assert code == 2 and "twice" in err
    with pytest.raises(RequestError):
        beside(two, "none", "first")

import pytest

from pipelines import Axis, Comparison, RequestError, RunRequest, parse_axis
from pipelines.comparison import forecast, label
from pipelines.errors import Cancelled

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=3)


def test_two_axes_make_rows_and_columns_and_a_third_makes_sheets():
    axes = ["scheduler=ddim,euler", "guidance_scale=1,3,7", "seed=0,1"]
    comparison = Comparison.parse(BASE, axes)
    assert comparison.rows == Axis("scheduler", ("ddim", "euler"))
    assert comparison.columns == Axis("guidance_scale", (1.0, 3.0, 7.0))
    cells = comparison.cells()
    assert len(cells) == 12
    assert [cell.axes["seed"] for cell in cells] == [0] * 6 + [1] * 6
    assert [cell.axes["guidance_scale"] for cell in cells[:4]] == [1, 3, 7, 1]
    assert cells[3].request == BASE.changed(scheduler="euler", guidance_scale=1, seed=0)


def test_one_axis_makes_columns():
    comparison = Comparison.parse(BASE, ["num_inference_steps=1,2"])
    assert comparison.rows is None
    assert comparison.columns.values == (1, 2)


def test_prompts_keep_their_commas():
    axis = parse_axis("prompt=a red car, at night || a blue boat")
    assert axis.values == ("a red car, at night", "a blue boat")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("guidance_scale", "NAME=VALUE"),
        ("cfg=1,2", "'cfg'.*guidance_scale"),
        ("guidance_scale=1,,2", "value is missing"),
        ("guidance_scale=1,high", "'high'.*0 to 100"),
        ("seed=", "value is missing"),
        ("seed=1,1", "more than once"),
        ("scheduler=ddim,eular", "'eular'"),
        ("image=a", "'image'"),
    ],
)
def test_bad_axes(text, part):
    with pytest.raises(RequestError, match=part):
        parse_axis(text)


def test_an_axis_twice_or_a_thousand_cells_too_many():
    with pytest.raises(RequestError, match="seed is given more than once"):
        Comparison.parse(BASE, ["seed=1,2", "seed=3"])
    seeds = "seed=" + ",".join(map(str, range(200)))
    with pytest.raises(RequestError, match="1200 cells, accepted up to 1000"):
        Comparison.parse(BASE, [seeds, "guidance_scale=1,2,3,4,5,6"])


def test_labels_are_what_people_know():
    assert label("scheduler", "dpmpp_2m_karras") == "DPM++ 2M Karras"
    assert label("guidance_scale", 7.5) == "7.5"
    assert label("guidance_scale", 3.0) == "3"


def test_cells_are_logged_with_equal_noise_and_come_back_from_the_log(engine):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,euler_a", "guidance_scale=1,5"])
    seen = []
    runs = engine.compare(comparison, on_cell=lambda number, run: seen.append(number),
                          comparison_id="abc")
    assert seen == [0, 1, 2, 3]
    assert len({run.noise_sha256 for run in runs}) == 1
    assert len({run.image_sha256 for run in runs}) == 4
    row = engine.run_log.comparison("abc")
    assert row.status == "done"
    again = Comparison.from_row(row)
    assert again == comparison
    found = again.match(engine.run_log.runs(comparison_id="abc"))
    assert [run.id for run in found] == [run.id for run in runs]


def test_warm_up_is_in_no_cell(engine):
    comparison = Comparison.parse(BASE.changed(height=88, width=88), ["seed=0,1"])
    first, second = engine.compare(comparison)
    assert first.warm_up_ms > 0
    assert second.warm_up_ms == 0
    assert first.nfe == second.nfe == 3


def test_one_failed_cell_leaves_the_others(engine):
    comparison = Comparison.parse(BASE, ["height=64,60,72"])
    runs = engine.compare(comparison)
    assert [run.status for run in runs] == ["ok", "failed", "ok"]
    assert "60" in runs[1].error
    assert engine.run_log.count(status="failed") == 1


def test_cancel_keeps_what_is_done(engine):
    comparison = Comparison.parse(BASE, ["seed=0,1,2"])

    def stop(number, _step):
        if number == 1:
            raise Cancelled("stopped")

    runs = engine.compare(comparison, stop, comparison_id="c")
    assert [run and run.status for run in runs] == ["ok", None, None]
    assert engine.run_log.comparison("c").status == "cancelled"
    assert engine.run_log.count(comparison_id="c") == 2  # the stopped one is a row too


def test_forecast_counts_before_and_times_after_runs(engine):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,heun", "guidance_scale=1,5"])
    requests = [cell.request for cell in comparison.cells()]
    before = forecast(requests, engine.run_log, engine.registry)
    assert (before.cells, before.nfe, before.seconds) == (4, 2 * 3 + 2 * 5, None)
    runs = engine.compare(comparison)
    after = forecast(requests, engine.run_log, engine.registry)
    large = [request.changed(height=512) for request in requests]
    assert forecast(large, engine.run_log, engine.registry).seconds is None
    assert after.nfe == sum(run.nfe for run in runs)
    assert after.based_on == 4
    measured = sum(run.total_ms for run in runs) / 1000
    assert after.seconds == pytest.approx(measured, rel=0.8)

import itertools

import pytest

from pipelines import Axis, Comparison, RequestError, RunRequest, measuring, parse_axis
from pipelines.axes import label
from pipelines.comparison import forecast, work_order
from pipelines.errors import Cancelled
from pipelines.making import make_picture

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=3)


def test_two_axes_make_rows_and_columns_and_a_third_makes_sheets():
    axes = ["scheduler=ddim,euler", "guidance_scale=1,3,7", "seed=0,1"]
    comparison = Comparison.parse(BASE, axes)
    assert comparison.rows == Axis("scheduler", ("ddim", "euler"))
    assert comparison.columns == Axis("guidance_scale", (1.0, 3.0, 7.0))
    cells = comparison.cells
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
    requests = [cell.request for cell in comparison.cells]
    before = forecast(requests, engine.run_log, engine.registry)
    assert (before.cells, before.nfe, before.seconds) == (4, 2 * 3 + 2 * 5, None)
    runs = engine.compare(comparison)
    after = forecast(requests, engine.run_log, engine.registry)
    large = [request.changed(height=512) for request in requests]
    assert forecast(large, engine.run_log, engine.registry).seconds is None
    assert after.nfe == sum(run.nfe for run in runs)
    assert after.based_on == 4
    for run in runs:  # 10 ms a row and 7 ms for the rest: what was measured would be no even number
        run_ms = 10 * run.denoiser_rows
        engine.run_log.update(run, denoising_ms=run_ms, total_ms=run_ms + 7)
    assert [run.denoiser_rows for run in runs] == [3, 6, 5, 10]
    exact = forecast(requests, engine.run_log, engine.registry)
    assert exact.seconds == pytest.approx((24 * 10 + 4 * 7) / 1000)


def test_a_cell_made_before_is_taken_from_the_log(engine):
    first = engine.compare(Comparison.parse(BASE, ["scheduler=ddim,euler"]))
    made = []
    wider = Comparison.parse(BASE, ["scheduler=ddim,euler,heun"])
    runs = engine.compare(wider, lambda number, _step: made.append(number), comparison_id="w")
    assert set(made) == {2}, "one column more costs that column"
    assert [run.reused_from for run in runs] == [first[0].id, first[1].id, None]
    assert [run.image_sha256 for run in runs[:2]] == [run.image_sha256 for run in first]
    assert [run.latents_sha256 for run in runs[:2]] == [run.latents_sha256 for run in first]
    assert engine.run_log.count() == 3, "a reused cell is no run of its own"
    assert wider.match(engine.run_log.runs(comparison_id="w")) == runs
    third = engine.compare(wider)
    assert [run.reused_from for run in third] == [first[0].id, first[1].id, runs[2].id]
    assert engine.in_log(wider) == [0, 1, 2]
    assert [run.reused_from for run in engine.compare(wider, fresh=True)] == [None] * 3


@pytest.mark.parametrize("change", [{"prompt": "a blue car"}, {"seed": 1}, {"height": 72},
                                    {"torch_dtype": "bfloat16"}, {"eta": 0.5},
                                    {"scheduler_options": {"timestep_spacing": "leading"}}])
def test_whatever_decides_the_picture_decides_what_is_reused(engine, change):
    engine.compare(Comparison.parse(BASE, ["scheduler=ddim"]))
    assert engine.in_log(Comparison.parse(BASE, ["scheduler=ddim"])) == [0]
    assert engine.in_log(Comparison.parse(BASE.changed(**change), ["scheduler=ddim"])) == []


def test_what_is_only_another_word_for_the_same_is_reused(engine):
    engine.compare(Comparison.parse(BASE, ["scheduler=ddim"]))
    info = engine.registry.describe("postcards")
    same = BASE.changed(height=info.height, width=info.width, torch_dtype="float32",
                        memory_policy="device")
    assert engine.in_log(Comparison.parse(same, ["scheduler=ddim"])) == [0]


def test_a_lost_picture_is_made_again(engine):
    comparison = Comparison.parse(BASE, ["seed=0,1"])
    runs = engine.compare(comparison)
    engine.pictures.path(runs[0].image_sha256).unlink()
    again = engine.compare(comparison)
    assert [run.reused_from for run in again] == [None, runs[1].id]


def test_an_interrupted_comparison_goes_on(engine):
    comparison = Comparison.parse(BASE, ["seed=0,1,2"])

    def stop(number, _step):
        if number == 1:
            raise Cancelled("stopped")

    first = engine.compare(comparison, stop, comparison_id="c")
    made = []
    runs = engine.compare(comparison, lambda number, _step: made.append(number), comparison_id="c")
    assert set(made) == {1, 2}
    assert runs[0].id == first[0].id
    assert runs[0].reused_from is None
    assert engine.run_log.comparison("c").status == "done"
    assert Comparison.from_row(engine.run_log.comparison("c")) == comparison
    again = engine.compare(comparison, lambda *_: pytest.fail("all is done"), comparison_id="c")
    assert [run.id for run in again] == [run.id for run in runs]


def test_weights_that_changed_do_not_pass_as_old(engine, tmp_path):
    """An interrupted comparison whose model was trained on in between."""
    import shutil

    from pipelines.models.files import BUNDLED

    folder = shutil.copytree(BUNDLED["postcards"], tmp_path / "model")
    comparison = Comparison.parse(BASE.changed(model_id=str(folder)), ["seed=0,1"])
    first = engine.compare(comparison, comparison_id="c")
    weights = next((folder / "unet").glob("*.safetensors"))
    from safetensors.torch import load_file, save_file

    save_file({name: value * 1.01 for name, value in load_file(weights).items()}, weights)
    runs = engine.compare(comparison, comparison_id="c")
    assert all(a.image_sha256 != b.image_sha256 for a, b in zip(first, runs, strict=True))
    engine.registry.unload(str(folder))


def test_models_are_loaded_one_after_the_other_and_cells_keep_their_order():
    cells = Comparison.parse(BASE, ["seed=0,1", "model_id=a,b", "torch_dtype=float32,bfloat16",
                                    "height=64,72"]).cells
    order = [cells[number].axes for number in work_order(cells)]
    keys = [(axes["model_id"], axes["torch_dtype"], axes["height"]) for axes in order]
    assert keys == sorted(keys, key=[*dict.fromkeys(keys)].index), "each setup once"
    assert len(dict.fromkeys(keys)) == 8
    assert [m for m, _ in itertools.groupby(key[0] for key in keys)] == ["a", "b"]
    assert [axes["seed"] for axes in order] == [0, 1] * 8


def test_cells_that_are_left_out_are_never_made(engine):
    comparison = Comparison.parse(BASE, ["scheduler=ddim,heun", "seed=0,1"], ["scheduler=heun"])
    runs = engine.compare(comparison, comparison_id="s")
    assert [run is None for run in runs] == [False, False, True, True]
    assert engine.run_log.comparison("s").status == "done"
    assert Comparison.from_row(engine.run_log.comparison("s")) == comparison
    shared = engine.compare(comparison, shared=True, fresh=True)
    assert [run and run.shared for run in shared] == [True, True, None, None]


def test_linked_values_come_back_from_the_log(engine):
    comparison = Comparison.parse(BASE, ["num_inference_steps+scheduler=2+ddim,1+euler"])
    runs = engine.compare(comparison, comparison_id="l")
    again = Comparison.from_row(engine.run_log.comparison("l"))
    assert again == comparison
    found = again.match(engine.run_log.runs(comparison_id="l"))
    assert [run.id for run in found] == [run.id for run in runs]
    assert [run.scheduler for run in runs] == ["ddim", "euler"]


def test_timings_are_measured_apart_in_turns_and_kept(engine):
    comparison = Comparison.parse(BASE, ["seed=0,1"])
    runs = engine.compare(comparison, shared=True)
    assert measuring.timings(engine, runs) == [None, None]
    seeds = []
    def watched(model, request, *rest):
        seeds.append(request.seed)
        return make_picture(model, request, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.timer.make_picture", watched)
        measuring.measure_timings(engine, runs, 3)
    assert seeds == [0, 1, 1, 0, 0, 1]
    for summary in measuring.timings(engine, runs):
        assert summary.repeats == 3
        assert 0 < summary.low_ms <= summary.median_ms <= summary.high_ms
    assert engine.run_log.count() == 2, "a repeat is no run"
    reused = engine.compare(comparison)
    assert measuring.timings(engine, reused) == measuring.timings(engine, runs)

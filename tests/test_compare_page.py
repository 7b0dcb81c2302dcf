"""The page Compare, on the real engine and the bundled model, through AppTest."""

import io
import json
import threading

import pytest
from apptest import WAIT, component_data, finish, html, page
from PIL import Image
from streamlit.testing.v1 import AppTest

from dashboard import state
from pipelines import Axis, Comparison, Engine, RunRequest, measuring
from pipelines.comparison import forecast
from pipelines.errors import Cancelled
from pipelines.log_tables import ComparisonRow, utc_now
from pipelines.sheet.cells import Results
from pipelines.sheet.exports import sheet_pngs


def test_compare_forecasts_live(filled):
    app = page("compare")
    app.multiselect(key="compare.values.scheduler").set_value(["ddim", "heun"])
    app.text_input(key="compare.values.guidance_scale").set_value("1, 3, 7")
    app.number_input(key="compare.num_inference_steps").set_value(4).run()
    line = next(c.value for c in app.caption if "function evaluations" in c.value)
    comparison = Comparison.parse(RunRequest(num_inference_steps=4),
                                  ["scheduler=ddim,heun", "guidance_scale=1,3,7"])
    requests = [cell.request for cell in comparison.cells]
    expected = forecast(requests, filled.run_log, filled.registry)
    assert expected.nfe == 3 * 4 + 3 * 7
    assert line.startswith(f"**6 cells** · {expected.nfe} function evaluations · about ")


@pytest.mark.parametrize("values, problem", [
    ("1, x", "guidance_scale: received &#x27;x&#x27;"),
    ("1, 1", "given more than once"),
    ("1,,2", "a value is missing"),
])  # fmt: skip
def test_bad_axis_values_are_explained_and_block_the_start(home, values, problem):
    app = page("compare")
    app.text_input(key="compare.values.guidance_scale").set_value(values).run()
    assert problem in html(app)
    assert app.button(key="compare.go").disabled


def start_comparison(app: AppTest, prompt: str = "a red car on a road") -> AppTest:
    app.text_area(key="compare.prompt").set_value(prompt)
    app.number_input(key="compare.num_inference_steps").set_value(1)
    app.multiselect(key="compare.values.scheduler").set_value(["ddim", "euler"])
    app.text_input(key="compare.values.guidance_scale").set_value("1, 3")
    return app.button(key="compare.go").click().run()


def test_each_note_of_the_cells_stands_above_the_sheet_once(home):
    base = RunRequest(prompt="a", num_inference_steps=1, guidance_rescale=0.5)
    state.engine().compare(Comparison.parse(base, ["guidance_scale=1,2,3"]), comparison_id="noted")
    shown = html(page("compare", {}, comparison="noted"))
    assert shown.count("guidance_rescale: no effect, since guidance_scale is not above 1 (1 of 3)"
                       ) == 1


def test_the_axis_editor_knows_ranges_links_rules_and_pictures_per_cell(home):
    linked = "num_inference_steps+scheduler"
    app = page("compare", {
        "compare.axes": [linked, "guidance_scale", "prompt_replace"],
        f"compare.values.{linked}": "2+ddim, 1+heun",
        "compare.values.guidance_scale": "1..5:2, skip:9",
        "compare.values.prompt_replace": "skip:red\nblue",
        "compare.skip": "scheduler=heun, guidance_scale>1; guidance_scale=3",
        "compare.pictures": 2,
    })  # fmt: skip
    app.text_area(key="compare.prompt").set_value("a red car").run()
    assert not app.exception
    assert any("**6 cells**" in caption.value for caption in app.caption)
    app.button(key="compare.go").click().run()
    finish(app)
    (row,) = state.engine().run_log.comparisons()
    comparison = Comparison.from_row(row)
    assert comparison.axes[0].values == ((2, "ddim"), (1, "heun"))
    runs = state.engine().run_log.runs(comparison_id=row.id)
    assert sorted((r.scheduler, r.guidance_scale, r.prompt, r.seed) for r in runs) == sorted(
        [("ddim", 1.0, "a blue car", 0), ("ddim", 1.0, "a blue car", 1),
         ("ddim", 5.0, "a blue car", 0), ("ddim", 5.0, "a blue car", 1),
         ("heun", 1.0, "a blue car", 0), ("heun", 1.0, "a blue car", 1)])  # fmt: skip
    app.button(key="again").click().run()
    assert not app.exception
    assert app.text_area(key="compare.values.prompt_replace").value == "skip:red\nblue"
    assert any("all in the log already" in caption.value for caption in app.caption)


def test_use_these_settings_again_keeps_every_kind_of_value(home, busy_queue):
    base = RunRequest(prompt="a red car, at sea", seed=2**53 + 1, strength=0.1234567,
                      loras=["a=b,c.safetensors=0.3"])
    axes = ["scheduler=default,ddim", "prompt_replace=red||blue||", "prompt_replace=sea||night",
            'loras:=["a,b.safetensors", "none"]', "guidance_scale=1.2345678,1.2345679"]
    rules = ("prompt_replace=blue;,x", "scheduler=ddim,guidance_scale>1.23456785")
    comparison = Comparison.parse(base, axes, ["prompt_replace=blue", rules[1]])
    comparison = Comparison(base, comparison.axes, rules)
    state.engine().run_log.add(ComparisonRow(
        id="kinds", datetime_utc=utc_now(), base=base.model_dump(mode="json"),
        axes=[axis.as_dict() for axis in comparison.axes], skip=list(rules)))
    app = page("compare", comparison="kinds")
    app.button(key="again").click().run()
    assert not app.exception
    count = sum(not cell.left_out for cell in comparison.cells)
    assert any(f"**{count} cells**" in caption.value for caption in app.caption)
    app.button(key="compare.go").click().run()
    job = state.job_queue().active()[-1]
    job.cancel()
    without_picture = base.changed(strength=1.0)
    settings = job.row.settings
    assert settings["base"] == without_picture.model_dump(mode="json")
    assert settings["axes"] == [axis.as_dict() for axis in comparison.axes]
    assert settings["skip"] == list(rules)


def test_distances_and_timings_are_measured_from_the_page(home):
    engine = state.engine()
    base = RunRequest(prompt="a red car", num_inference_steps=1)
    comparison = Comparison.parse(base, ["num_inference_steps=1..3", "scheduler=ddim,euler"])
    engine.compare(comparison, comparison_id="m", shared=True)
    reference = "num_inference_steps=3,scheduler=ddim"
    app = page("compare", comparison="m")
    app.selectbox(key="reference-m").set_value(reference).run()
    app.button(key="measure.distances").click().run()
    finish(app)
    row = engine.run_log.comparison("m")
    runs = comparison.match(engine.run_log.runs(comparison_id="m"))
    assert row.reference == reference
    assert measuring.distances(engine, comparison, runs, reference)[4].rms_latents == 0
    app.number_input(key="measure.repeats").set_value(2).run()
    app.button(key="measure.timings").click().run()
    finish(app)
    assert [summary.repeats for summary in measuring.timings(engine, runs)] == [2] * 6
    app.run()
    assert not app.exception
    assert len(app.get("vega_lite_chart")) >= 2
    assert "fitted order" in app.dataframe[0].value


def test_a_cancelled_comparison_goes_on_from_the_page(home):
    engine = state.engine()
    comparison = Comparison.parse(RunRequest(prompt="a cat", num_inference_steps=1), ["seed=0,1"])

    def stop(number, _step):
        if number == 1:
            raise Cancelled("stopped")

    engine.compare(comparison, stop, comparison_id="c")
    app = page("compare", comparison="c")
    app.button(key="resume").click().run()
    finish(app)
    assert engine.run_log.comparison("c").status == "done"
    assert engine.run_log.count(comparison_id="c", status="ok") == 2
    assert not app.exception


def test_a_mistake_in_an_axis_is_marked(home):
    app = page("compare")
    app.text_input(key="compare.values.guidance_scale").set_value("1, 9..2:3").run()
    assert app.button(key="compare.go").disabled
    assert [code.value for code in app.code] == ["guidance_scale=1, 9..2:3\n" + 18 * " " + "^^^^^^"]


def test_a_comparison_becomes_a_sheet_with_proven_noise(home):
    app = finish(start_comparison(page("compare")))
    assert not app.exception
    log = Engine(home).run_log
    row = log.comparisons()[0]
    assert row.status == "done" and app.query_params["comparison"] == row.id
    sheet = component_data(app, "contact_sheet.sheet")
    assert [axis["labels"] for axis in sheet["axes"]] == [["DDIM", "Euler"], ["1", "3"]]
    assert [cell["status"] for cell in sheet["cells"]] == ["ok"] * 4
    assert [cell["at"] for cell in sheet["cells"]] == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert all(cell["picture"] and cell["texts"]["total"] for cell in sheet["cells"])
    assert {cell["texts"]["nfe"] for cell in sheet["cells"]} == {"1 NFE"}
    assert "Equal noise: proven" in html(app)
    assert log.runs()[0].noise_sha256 in html(app)


def test_a_comparison_is_found_again_by_its_address_and_in_the_list(filled):
    app = page("compare", comparison="first")
    cells = component_data(app, "contact_sheet.sheet")["cells"]
    assert [cell["status"] for cell in cells] == ["ok", "ok"]
    other = page("compare")
    other.selectbox(key="compare.recent").set_value("first").run()
    assert component_data(other, "contact_sheet.sheet")["cells"] == cells


def test_an_unknown_comparison_is_explained(home):
    app = page("compare", comparison="nowhere")
    assert not app.exception and "comparison nowhere is not in the log" in html(app)


def test_failed_cells_say_why_and_the_others_stay(home):
    engine = state.engine()
    base = RunRequest(prompt="a tree", num_inference_steps=1)
    engine.compare(Comparison(base, (Axis("width", (64, 68)),)), comparison_id="mixed")
    app = page("compare", comparison="mixed")
    good, bad = component_data(app, "contact_sheet.sheet")["cells"]
    assert good["status"] == "ok" and good["picture"]
    assert bad["status"] == "failed" and "width: received 68" in bad["text"] and not bad["picture"]
    assert "1 of 2 cells failed" in html(app)


def test_different_noise_is_not_called_equal(home):
    engine = state.engine()
    base = RunRequest(prompt="a tree", num_inference_steps=1)
    engine.compare(Comparison(base, (Axis("width", (64, 72)),)), comparison_id="sizes")
    app = page("compare", comparison="sizes")
    assert "Equal noise: not proven" in html(app)


def test_any_number_of_axes_reaches_the_viewer(home):
    engine = state.engine()
    base = RunRequest(prompt="a tree", num_inference_steps=1)
    axes = [Axis("scheduler", ("ddim",)), Axis("guidance_scale", (1.0,)), Axis("seed", (5, 6))]
    engine.compare(Comparison(base, tuple(axes)), comparison_id="cube")
    app = page("compare", comparison="cube")
    sheet = component_data(app, "contact_sheet.sheet")
    assert [axis["name"] for axis in sheet["axes"]] == ["scheduler", "guidance_scale", "seed"]
    assert [cell["at"] for cell in sheet["cells"]] == [[0, 0, 0], [0, 0, 1]]
    assert [cell["label"][-6:] for cell in sheet["cells"]] == ["seed 5", "seed 6"]
    assert "One hash for each of 2 seeds" in html(app)


def test_the_strips_of_steps_come_when_they_are_wanted(filled):
    def strips(app):
        return [cell["strip"] for cell in component_data(app, "contact_sheet.sheet")["cells"]]

    app = page("compare", comparison="first")
    assert strips(app) == [None, None]
    app.session_state["sheet-first"] = {"steps": True}
    app.run()
    assert all(strips(app))


@pytest.fixture
def busy_queue(home):
    """A queue whose worker is held up until the test lets it go."""
    gate = threading.Event()
    queue = state.job_queue()
    queue.kinds = queue.kinds | {"other": lambda work, settings: gate.wait(WAIT)}
    queue.submit("other", "in front", 1, {})
    yield gate
    gate.set()


def test_starting_twice_from_two_browsers_is_one_comparison(home, busy_queue):
    app, other = start_comparison(page("compare")), start_comparison(page("compare"))
    assert "Waiting for 1 other job" in [bar.proto.text for bar in app.get("progress")]
    assert app.query_params["comparison"] == other.query_params["comparison"]
    busy_queue.set()
    finish(app)
    assert Engine(home).run_log.count() == 4


def test_what_waits_can_be_cancelled_from_any_page(home, busy_queue):
    app = start_comparison(page("compare"))
    job = state.job_queue().active()[-1]
    elsewhere = page("runs")
    assert f"This job is not yours. A browser ({job.row.browser[:4]}) asked" in html(elsewhere)
    assert f"This job is not yours. A browser ({job.row.browser[:4]}) asked" not in html(app)
    elsewhere.button(key=f"cancel-queue-{job.id}").click().run()
    busy_queue.set()
    finish(app)
    assert job.status == "cancelled" and Engine(home).run_log.count() == 0


def test_cell_details_show_the_whole_request(filled):
    app = page("compare", comparison="first")
    app.session_state["opened_run"] = 2
    app.run()
    assert not app.exception
    request = json.loads(app.json[0].value)
    assert request["scheduler"] == "ddim" and request["num_inference_steps"] == 2
    assert "diffusers" in json.loads(app.json[1].value)


def test_a_sheet_carries_its_recipe(filled):
    (data,) = sheet_pngs(Results.of_log(filled, "first"))
    with Image.open(io.BytesIO(data)) as sheet:
        recipe = json.loads(sheet.text["contact_sheet"])
    assert recipe["axes"] == [{"name": "scheduler", "values": ["ddim", "euler"]}]


def test_a_cancelled_start_can_be_started_again(home, busy_queue):
    app = start_comparison(page("compare"))
    first = state.job_queue().active()[-1]
    app.button(key=f"cancel-page-{first.id}").click().run()
    assert "Cancelled before it started" in html(app)
    app = start_comparison(page("compare"))
    second = state.job_queue().active()[-1]
    assert second.id != first.id
    busy_queue.set()
    finish(app)
    assert second.status == "done" and Engine(home).run_log.count() == 4


@pytest.mark.parametrize(("name", "cells"), [("Schedulers at few steps", 30),
                                             ("Guidance 1 to 15", 28), ("Seeds", 12)])
def test_a_preset_fills_the_axes_and_keeps_the_prompt(home, name, cells):
    app = page("compare", {"compare.prompt": "a blue boat at sea"})
    app.button(key=f"compare.preset.{name}").click().run()
    assert f"{cells} cells" in "\n".join(caption.value for caption in app.caption)
    assert app.session_state["compare.prompt"] == "a blue boat at sea"

"""The pages Generate and Runs, on the real engine and the bundled model, through AppTest."""

import csv
import datetime
import json

import pytest
from apptest import NASTY, component_data, finish, html, page
from streamlit.testing.v1 import AppTest

from dashboard import state
from pipelines import Engine, RunRequest
from pipelines.log_tables import Run, utc_now
from pipelines.sheet.cells import runs_csv


@pytest.mark.parametrize("name", ["generate", "compare", "runs"])
def test_pages_of_an_empty_folder_say_what_to_do(home, name):
    app = page(name)
    assert not app.exception
    hint = {"generate": "press Generate", "compare": "set the axes", "runs": "The log is empty"}
    assert hint[name] in html(app)


@pytest.mark.parametrize("name", ["generate", "compare", "runs"])
def test_pages_of_a_filled_folder_render(filled, name):
    app = page(name)
    assert not app.exception
    assert app.title[0].value == name.capitalize()


def test_generate_makes_one_picture_per_seed(home):
    app = page("generate")
    app.text_area(key="generate.prompt").set_value("a white house in the snow")
    app.number_input(key="generate.num_inference_steps").set_value(2)
    app.selectbox(key="generate.scheduler").set_value("heun")
    app.text_input(key="generate.seed").set_value("41")
    app.number_input(key="generate.count").set_value(2)
    app.button(key="generate.go").click().run()
    finish(app)
    assert not app.exception
    runs = Engine(home).run_log.runs()
    assert [(r.prompt, r.scheduler, r.seed, r.nfe, r.status) for r in runs] == [
        ("a white house in the snow", "heun", seed, 3, "ok") for seed in (42, 41)
    ]
    pictures = component_data(app, "contact_sheet.picture")["pictures"]
    assert [picture["caption"] for picture in pictures] == ["seed 41", "seed 42"]
    assert all(picture["url"] and "white house" in picture["alt"] for picture in pictures)
    assert runs[1].noise_sha256 in html(app)


def test_a_bad_seed_is_explained_and_nothing_runs(home):
    app = page("generate")
    app.text_input(key="generate.seed").set_value("minus one")
    app.button(key="generate.go").click().run()
    assert "seed: received &#x27;minus one&#x27;, accepted a whole number" in html(app)
    assert Engine(home).run_log.count() == 0


@pytest.mark.parametrize("text", ["{karras}", "[" * 10_000, '{"x": ' + "9" * 5_000 + "}"])
def test_bad_scheduler_options_are_explained(home, text):
    app = page("generate")
    app.text_input(key="generate.scheduler_options").set_value(text).run()
    assert not app.exception
    assert "accepted JSON such as" in html(app)


def test_an_unknown_model_is_explained(home):
    app = page("generate", {"generate.model_id": "nobody/nothing"})
    assert not app.exception
    assert "nobody/nothing" in html(app) and "not on this machine" in html(app)


def test_a_seed_beyond_a_browsers_numbers_survives(home):
    largest = 2**63 - 1
    engine = state.engine()
    run = engine.run(RunRequest(seed=largest, num_inference_steps=1))
    app = page("runs", {"opened_run": run.id})
    app.button(key=f"drawer.open.{run.id}").click().run()
    assert app.text_input(key="generate.seed").value == str(largest)
    app = page("generate", {"generate.seed": str(largest)})
    app.button(key="generate.go").click().run()
    finish(app)
    assert [r.seed for r in engine.run_log.runs()] == [largest, largest]


def test_examples_fill_the_prompt_and_the_dice_the_seed(home):
    app = page("generate")
    app.button(key="generate.example.2").click().run()
    assert app.text_area(key="generate.prompt").value == "a blue boat on the sea at sunset"
    app.button(key="generate.dice").click().run()
    assert app.text_input(key="generate.seed").value not in ("", "0")


def test_the_words_that_the_model_knows_are_listed(home):
    app = page("generate")
    assert "Words it knows: " in html(app) and "balloon" in html(app)
    other = page("generate", {"generate.model_id": "somebody/else"})
    assert "Words it knows" not in html(other)


def test_unknown_words_are_named_for_the_bundled_model(home):
    app = page("generate")
    app.text_area(key="generate.prompt").set_value("a red car on Mars").run()
    assert "does not know: mars" in html(app)
    app.text_area(key="generate.prompt").set_value("a red car on a road").run()
    assert "does not know" not in html(app)


def test_generate_forecasts_from_the_log(filled):
    app = page("generate")
    app.number_input(key="generate.count").set_value(3).run()
    line = next(c.value for c in app.caption if "function evaluations" in c.value)
    assert line.startswith("3 pictures · 60 function evaluations · about ")


def test_compare_this_takes_the_request_along(filled):
    app = page("runs")
    app.session_state["opened_run"] = 5
    app.run()
    app.button(key="drawer.compare.5").click().run()
    assert not app.exception
    assert app.title[0].value == "Compare"
    assert app.text_area(key="compare.prompt").value == NASTY
    assert app.text_input(key="compare.seed").value == "7"
    assert app.number_input(key="compare.num_inference_steps").value == 2


def test_open_in_generate_takes_the_request_along(filled):
    app = page("runs")
    app.session_state["opened_run"] = 3
    app.run()
    app.button(key="drawer.open.3").click().run()
    assert app.title[0].value == "Generate"
    assert app.selectbox(key="generate.scheduler").value == "euler"
    assert app.number_input(key="generate.width").value == 64


def shown(app: AppTest) -> list[int]:
    return [row["id"] for row in component_data(app, "contact_sheet.run_table")["rows"]]


def test_runs_are_filtered(filled):
    app = page("runs")
    assert shown(app) == [5, 4, 3, 2, 1]
    app.text_input(key="runs.text").set_value("BOAT").run()
    assert shown(app) == [4]
    app.text_input(key="runs.text").set_value("").run()
    app.selectbox(key="runs.scheduler").set_value("euler").run()
    assert shown(app) == [3]
    app.selectbox(key="runs.scheduler").set_value(None)
    app.selectbox(key="runs.status").set_value("failed").run()
    assert shown(app) == [4]
    app.text_input(key="runs.text").set_value("nothing like it").run()
    assert "No run fits" in html(app)


def test_runs_are_filtered_by_day(filled):
    today = datetime.datetime.now(datetime.UTC).date()
    app = page("runs")
    app.date_input(key="runs.days").set_value((today, today)).run()
    assert len(shown(app)) == 5
    yesterday = today - datetime.timedelta(days=1)
    app.date_input(key="runs.days").set_value((yesterday, yesterday)).run()
    assert "No run fits" in html(app)


def test_schedulers_on_offer_go_with_the_model(home):
    app = page("generate")
    options = app.selectbox(key="generate.scheduler").options
    assert "DDIM" in options and "Flow Euler" not in options


def test_runs_are_sorted(filled):
    app = page("runs")
    app.session_state["runs.sort"] = ("seed", False)
    app.run()
    assert shown(app)[0] == 5
    app.session_state["runs.sort"] = ("datetime_utc", True)
    app.run()
    assert shown(app) == [1, 2, 3, 4, 5]


def test_thousands_of_runs_come_in_pages(home):
    log = Engine(home).run_log
    request = RunRequest(prompt="many", num_inference_steps=20, guidance_scale=5)
    columns = {name: getattr(request, name) for name in (
        "model_id", "task", "prompt", "negative_prompt", "scheduler", "seed",
        "num_inference_steps", "guidance_scale")}  # fmt: skip
    with log._session() as session:
        session.add_all(Run(datetime_utc=utc_now(), status="cancelled",
                            request=request.model_dump(mode="json"), **columns)
                        for _ in range(2000))
    app = page("runs")
    assert shown(app) == list(range(2000, 1975, -1))
    app.button(key="runs.last").click()
    app.run()
    assert shown(app) == list(range(25, 0, -1))


def test_export_holds_what_is_filtered(filled):
    rows = list(csv.DictReader(runs_csv(filled.run_log.runs(scheduler="euler"))))
    assert [row["id"] for row in rows] == ["3"]
    assert json.loads(rows[0]["request"])["scheduler"] == "euler"


def test_the_log_is_exported_for_programs_and_for_people(filled):
    app = page("runs")
    app.button(key="runs.export.spreadsheet").click()
    app.run()
    assert state.job_queue().jobs()[-1].wait(60)
    app.run()
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["Download"]
    (file,) = (filled.home / "exports").iterdir()
    assert file.read_text("utf-8").startswith("\ufeff") and "5 runs" in str(
        state.job_queue().jobs()[-1].message)
    app.button(key=f"runs.remove.{file.name}").click()
    app.run()
    assert not file.exists()


@pytest.mark.parametrize("name", ["generate", "runs"])
def test_prompts_are_never_markup(filled, name):
    app = page(name)
    if name == "runs":
        app.session_state["opened_run"] = 5
        app.run()
    assert "&lt;img src=x onerror=alert(1)&gt;" in html(app)
    assert "<img src=x" not in html(app)
    markup = [e.value for kind in (app.markdown, app.caption, app.error, app.warning) for e in kind]
    assert not any("evil.example" in text for text in markup)


@pytest.mark.parametrize("model", ["~nobody-here/x", "a" * 400])
def test_a_strange_model_id_is_explained(home, model):
    app = page("generate", {"generate.model_id": model})
    assert not app.exception
    assert "which is not on this machine" in html(app)


def test_a_size_that_does_not_fit_is_said_before_anything_runs(home):
    app = page("generate", {"generate.width": 100})
    assert "nearest 96 and 104" in html(app)
    app.button(key="generate.go").click().run()
    assert not state.job_queue().jobs()


def test_a_query_is_kept_in_the_address_and_its_mistakes_are_marked(filled):
    app = page("runs", where="steps>0 scheduler:euler", sort="seed-up")
    assert shown(app) == [3]
    assert app.text_input(key="runs.where").value == "steps>0 scheduler:euler"
    app.text_input(key="runs.where").set_value("-scheduler:euler").run()
    assert len(shown(app)) == 4 and "-scheduler:euler" in app.query_params["where"]
    assert "seed-up" in app.query_params["sort"]
    app.text_input(key="runs.where").set_value("stepz<3").run()
    assert not app.exception and "steps is" in html(app)
    assert app.code[0].value == "stepz<3\n^^^^^"


def test_any_field_can_be_filtered_without_typing_a_query(filled):
    app = page("runs")
    app.selectbox(key="runs.filter.field").set_value("seed").run()
    app.text_input(key="runs.filter.low").set_value("0").run()
    app.button(key="runs.filter.add").click().run()
    assert app.text_input(key="runs.where").value == "seed:0.."
    assert len(shown(app)) == 5


def test_selected_runs_are_marked_deleted_and_brought_back(filled):
    app = page("runs", {"runs.selected": [3, 4]})
    app.text_input(key="runs.tag").set_value("best").run()
    app.button(key="runs.add_tag").click().run()
    app.button(key="runs.star").click().run()
    rows = {row["id"]: row for row in component_data(app, "contact_sheet.run_table")["rows"]}
    assert rows[3]["tags"] == ["best"] and rows[3]["starred"] and not rows[5]["starred"]
    app.button(key="runs.delete").click().run()
    assert shown(app) == [5, 2, 1]
    app.button(key="runs.undo_button").click().run()
    assert shown(app) == [5, 4, 3, 2, 1]
    app.session_state["runs.selected"] = [4]
    app.run()
    app.button(key="runs.delete").click().run()
    app.button(key="runs.open_bin").click().run()
    assert shown(app) == [4]
    app.button(key="runs.empty").click().run()
    assert "removed for good" in html(app)
    app.button(key="runs.empty_now").click().run()
    assert shown(app) == [5, 3, 2, 1] and filled.run_log.run(4) is None


def test_the_first_page_shows_a_picture_and_three_ways_to_go_on(home):
    app = page("generate")
    assert "a red car on a road at night" in html(app) and "cs-first" in html(app)
    assert {"generate.first.inpaint", "generate.first.learn"} <= {b.key for b in app.button}
    app.button(key="generate.first.compare").click().run()
    assert app.title[0].value == "Compare"
    assert "30 cells" in "\n".join(caption.value for caption in app.caption)

"""The page Study, on the real engine and the bundled model, through AppTest."""

import numpy as np
from apptest import component_data, finish, html, page

from dashboard import state
from pipelines import Comparison, RunRequest
from pipelines.log_tables import ComparisonRow, utc_now
from pipelines.study.conduct import conduct
from pipelines.study.design import Study, parse_methods
from pipelines.study.prompts import bundled_prompts
from pipelines.study.rows import set_status, study_rows

BASE = RunRequest(num_inference_steps=1, guidance_scale=1)
SMALL = {"study.values.scheduler": ["ddim", "euler"], "study.seeds": 1, "study.reference": None,
         "study.measures": ["judge"], "study.prompts.count": 8}


def start(app):
    app.number_input(key="study.num_inference_steps").set_value(1)
    app.number_input(key="study.guidance_scale").set_value(1).run()
    assert not app.exception
    return app.button(key="study.go").click().run()


def test_a_study_from_the_form_to_its_sentences(home):
    app = page("study", SMALL)
    assert any("16 pictures" in caption.value for caption in app.caption)
    assert "a true win rate of" in html(app) and "is found with 80 % probability" in html(app)
    app = finish(start(app))
    assert not app.exception
    (row,) = study_rows(state.engine().run_log)
    assert (row.status, len(row.prompts), row.measures) == ("done", 8, ["judge"])
    shown = html(app)
    assert "DDIM and Euler cannot be told apart" in shown
    assert "Equal noise: proven" in shown
    figures = component_data(app, "contact_sheet.drawings")["drawings"]
    assert "class='matrix'" in figures[0]["drawing"] and "<svg" in figures[1]["drawing"]
    assert {button.label for button in app.get("download_button")} >= {
        "Report (HTML)", "All pairs (CSV)", "All pairs (Parquet)", "Findings (JSON)"}


def test_typed_prompts_and_what_is_wrong_with_a_design(home):
    app = page("study", {**SMALL, "study.prompts.source": "A list"})
    assert "no prompts; accepted one a line" in html(app)
    assert app.button(key="study.go").disabled
    app.text_area(key="study.prompts.text").set_value("a red car\na blue zeppelin").run()
    assert any("4 pictures" in caption.value for caption in app.caption)
    assert "does not know: zeppelin" in html(app)
    app.multiselect(key="study.values.scheduler").set_value(["ddim"]).run()
    assert "methods: received 1, accepted 2 to 12" in html(app)


def test_a_comparison_is_asked_of_many_prompts(home):
    engine = state.engine()
    comparison = Comparison.parse(BASE.changed(prompt="a red car"), [
        "scheduler=ddim,euler,heun", "num_inference_steps=1,2", "guidance_scale=1,3,5", "seed=0,1"])
    engine.run_log.add(ComparisonRow(
        id="asked", datetime_utc=utc_now(), base=comparison.base.model_dump(mode="json"),
        axes=[axis.as_dict() for axis in comparison.axes], status="done"))
    app = page("compare", comparison="asked")
    app.button(key="study").click().run()
    app.switch_page("views/study.py").run()
    assert not app.exception
    assert app.multiselect(key="study.axes").value == ["scheduler", "num_inference_steps"]
    assert "guidance_scale of the comparison is left out" in html(app)
    assert any(caption.value.startswith("**") for caption in app.caption), "a forecast"


def test_an_interrupted_study_goes_on_and_an_unknown_one_is_an_error(home, monkeypatch):
    engine = state.engine()
    study = Study(BASE, parse_methods(["scheduler=ddim,euler"], BASE),
                  bundled_prompts(9, "postcards"), (0,), "scheduler=ddim", ("rms_latents",))
    findings = conduct(engine, study)
    gone = findings.values.runs[1, 8, 0]
    engine.run_log.update(gone, status="failed", error="it broke")
    set_status(engine.run_log, study.id, "running")
    app = page("study", study=study.id)
    assert "it runs in another program, or was interrupted" in html(app)
    assert "1 of 18 cells failed" in html(app)
    assert "DDIM is closer than Euler" in html(app)
    app.button(key="study.resume").click().run()
    app = finish(app)
    assert "interrupted" not in html(app) and "failed" not in html(app)
    assert np.isfinite(state.watched_study(study.id).look().values.tables["rms_latents"]).all()
    assert "study nix is not in the log" in html(page("study", study="nix"))

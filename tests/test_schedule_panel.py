"""Noise schedules on Compare: drawn against each other, and one drawn by hand."""

import math

import pytest
from apptest import component_data, html, page

from pipelines.sigma_schedules import level_range


def test_schedules_are_drawn_and_one_by_hand_goes_onto_the_axis(home, session_engine):
    app = page("compare", {"compare.axes": ["sigma_schedule"], "compare.scheduler": "euler",
                           "compare.values.sigma_schedule": "default, karras"})
    assert not app.exception and "not foreseen" not in html(app)
    assert "The noise level at each evaluation" in html(app)
    data = component_data(app, "contact_sheet.schedule_editor")
    config = session_engine.registry.describe("postcards").original_scheduler_config
    assert (data["low"], data["high"]) == pytest.approx(level_range(config))
    assert len(data["levels"]) == 8 and data["levels"][0] == pytest.approx(data["high"])
    quotients = [b / a for a, b in zip(data["levels"], data["levels"][1:], strict=False)]
    assert math.isclose(min(quotients), max(quotients))
    app.session_state["compare.schedule.drawn.8"] = [10, 8, 6, 4, 3, 2, 1, 0.5]
    app.button(key="compare.schedule.add").click().run()
    assert app.session_state["compare.values.sigma_schedule"] == (
        "default, karras, sigmas:10 8 6 4 3 2 1 0.5")
    assert not app.exception

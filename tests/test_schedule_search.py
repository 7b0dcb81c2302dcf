"""The search for a schedule: on a model whose exact solution is known, and as a command."""

import json

import pytest

from pipelines import RequestError, RunRequest
from pipelines.schedule_search import search
from pipelines.sigma_schedules import SigmaSchedule
from pipelines.study.prompts import parse_prompts

BASE = RunRequest(model_id="exact-2d", scheduler="euler", num_inference_steps=4)


def test_the_search_finds_a_closer_schedule_and_keeps_its_log_to_itself(engine):
    heard = []
    result = search(engine, BASE, parse_prompts("right\ntop or bottom", False), (0, 1), 24,
                    lambda candidate, best: heard.append((candidate, best)))
    errors = [candidate.error for candidate in result.named]
    assert {"default", "karras", "exponential", "beta"} <= {c.schedule for c in result.named}
    assert errors == sorted(errors)
    schedule = SigmaSchedule.parse(result.best.schedule)
    assert schedule.kind == "sigmas" and schedule.count == 4
    assert result.best.error < errors[0]
    assert result.best.error == min(candidate.error for candidate, _ in heard)
    assert 24 <= result.tried <= 26 and len(heard) <= result.tried
    assert engine.run_log.runs() == []


def test_what_takes_no_levels_is_refused(engine):
    with pytest.raises(RequestError, match="takes neither"):
        search(engine, BASE.changed(scheduler="ddim"), parse_prompts("right", False), (0,), 20)


def test_the_command_says_what_is_gained_on_held_out_prompts(run):
    code, out, err = run("schedule-search", "--model-id", "exact-2d", "--scheduler", "euler",
                         "--num-inference-steps", "3", "--budget", "12", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["sigma_schedule"].startswith("sigmas:") and found["tried"] >= 12
    assert len(found["held_out"]["prompts"]) == 5  # of 7, two were trained on
    assert len(found["held_out"]["pairs"]) == 3
    code, _, err = run("schedule-search", "--training", "9", "--prompts", "bundled:9")
    assert code == 2 and "some are held out" in err

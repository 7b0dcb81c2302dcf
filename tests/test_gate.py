"""Gates: what passes, what does not, and how often, in simulations and on the bundled model."""

import dataclasses
import json

import numpy as np
import pytest
from sqlalchemy import select

from pipelines import RequestError, RunRequest
from pipelines.gate.conduct import conduct
from pipelines.gate.design import make_gate
from pipelines.gate.margins import MARGINS, parse_margins
from pipelines.gate.report import report
from pipelines.gate.verdict import BETTER, EQUAL, OPEN, WORSE, Verdict, judge, speed_up
from pipelines.log_tables import Timing
from pipelines.study import statistics
from pipelines.study.prompts import bundled_prompts
from pipelines.study.statistics import one_sided, prompts_to_decide

GATES = 200
DEFAULTS = {name: MARGINS[name].value for name in ("psnr", "flip", "judge")}
BASE = RunRequest(num_inference_steps=3, guidance_scale=1)


@pytest.fixture
def cheap(monkeypatch):
    """Fewer resamples, so that hundreds of gates take seconds."""
    monkeypatch.setattr(statistics, "RESAMPLES", 399)


def tables(rng, bias=0.0, prompts=60, seeds=2):
    """A baseline and a candidate that is worse by `bias` margins, measured with the spread that
    prompts, seeds and arithmetic make."""
    level = rng.normal(0, 1, (1, prompts, 1))
    within = rng.normal(0, 1, (2, prompts, seeds))
    worse = np.array([0.0, bias]).reshape(2, 1, 1)
    return {
        "psnr": 38 + 4 * level + 0.4 * within - worse * DEFAULTS["psnr"],
        "flip": np.exp(-3 + 0.5 * level + 0.1 * within) + worse * DEFAULTS["flip"],
        "judge": (rng.random((2, prompts, seeds)) > 0.01 + worse * DEFAULTS["judge"]).astype(float),
    }


def verdict(criteria):
    return Verdict("a", "b", criteria, None).verdict


def test_a_against_a_passes_200_of_200(cheap):
    rng = np.random.default_rng(0)
    verdicts = [verdict(judge(tables(rng), DEFAULTS)) for _ in range(GATES)]
    assert verdicts.count(EQUAL) == GATES


def test_planted_biases_fail_in_the_order_of_their_dose(cheap):
    rng = np.random.default_rng(1)
    shares = []
    for bias in (0, 0.8, 1.0, 1.2, 2.0):
        verdicts = [verdict(judge(tables(rng, bias), DEFAULTS)) for _ in range(25)]
        shares.append((verdicts.count(EQUAL), verdicts.count(WORSE)))
    passed, failed = zip(*shares, strict=True)
    assert passed[0] == 25 and failed[0] == 0
    assert list(passed) == sorted(passed, reverse=True) and list(failed) == sorted(failed)
    assert passed[2] <= 3, "on the margin: at most 5 of 100"
    assert passed[-1] == 0 and failed[-1] == 25


@pytest.mark.parametrize("skew", [1, -1])
def test_what_lies_on_the_margin_passes_in_5_of_100_at_most(monkeypatch, skew):
    monkeypatch.setattr(statistics, "RESAMPLES", 4999)
    rng = np.random.default_rng(2)
    errors = skew * (rng.exponential(1, (1000, 60, 1)) - 1) + rng.normal(0, 0.3, (1000, 60, 2))
    passed = np.mean([estimate.low > 0 for estimate in one_sided(errors)])  # the truth is 0
    assert 0.02 < passed <= 0.07, "5 % and what a thousand trials scatter"


def test_what_nobody_has_seen_is_not_excluded():
    (same,) = one_sided(np.zeros((1, 60, 1)), reach=1.0)
    assert same.high == pytest.approx(1 - 0.05 ** (1 / 60)) == -same.low
    assert one_sided(np.zeros((1, 60, 1)))[0].high == 0
    assert prompts_to_decide(same, 0.02, 1.0) == 149, "0.05^(1/149) is above 0.98"
    assert one_sided(np.full((1, 9, 2), np.nan)) == [None]
    assert one_sided([[[1.0, 2.0]]])[0].low == -np.inf, "one prompt says nothing"


def test_verdicts_and_their_sentences(cheap):
    rng = np.random.default_rng(3)
    (psnr,) = judge({"psnr": tables(rng, -3)["psnr"]}, {"psnr": 0.5})
    assert psnr.verdict == BETTER and verdict((psnr,)) == EQUAL
    assert psnr.difference == pytest.approx(1.5, abs=0.2) and psnr.low < psnr.difference < psnr.high
    (worse,) = judge({"flip": tables(rng, 3)["flip"]}, {"flip": 0.02})
    assert worse.sentence.startswith("FLIP: worse (margin 0.02); candidate minus baseline is 0.0")
    assert worse.difference > 0, "more FLIP is worse"
    some = tables(rng, 0.9, prompts=12)
    (few,) = judge({"psnr": some["psnr"]}, {"psnr": 0.5})
    assert few.verdict == OPEN and few.needed > 12
    assert "prompts would be needed" in few.sentence
    (seven,) = judge({"flip": tables(rng, 0, 7)["flip"]}, {"flip": 0.5})
    assert "below 8 prompts nothing is decided" in seven.sentence
    (part,) = judge({"flip": tables(rng)["flip"]}, {"flip": 0.5}, complete=False)
    assert part.verdict == OPEN and "not all cells are made" in part.sentence
    (none,) = judge({"flip": np.full((2, 9, 1), np.nan)}, {"flip": 0.5})
    assert (none.verdict, none.n, none.low) == (OPEN, 0, None)
    assert Verdict("a", "b", (), None).exit_code == 3
    assert [Verdict("a", "b", (c,), None).exit_code for c in (psnr, worse, few)] == [0, 1, 3]


def timed(rng, factor, prompts=60):
    """Milliseconds of two methods in turns on a machine that gets slower, has slow minutes and
    stumbles; the second one takes `factor` of the first one's."""
    drift = np.repeat(np.exp(np.cumsum(rng.normal(0, 0.05, prompts))), 2)
    noise = np.exp(rng.normal(0, 0.08, 2 * prompts)) * (1 + (rng.random(2 * prompts) < 0.03) * 2)
    taken = (500 * drift * noise).reshape(prompts, 2)
    turned = np.where(np.arange(prompts)[:, None] % 2, taken[:, ::-1], taken)
    return (turned * [1, factor]).T[:, :, None]


def test_a_gain_of_10_percent_is_found_and_none_where_there_is_none(cheap):
    rng = np.random.default_rng(4)
    gains = [speed_up(timed(rng, 1 / 1.1)) for _ in range(100)]
    assert sum(gain.shown and gain.ratio > 1 for gain in gains) >= 90
    assert np.mean([gain.low <= 1.1 <= gain.high for gain in gains]) >= 0.9
    none = [speed_up(timed(rng, 1.0)) for _ in range(GATES)]
    assert sum(gain.shown for gain in none) <= 18, "5 % and what 200 trials scatter"
    assert "a difference in speed is not shown" in next(g for g in none if not g.shown).sentence
    few = speed_up(timed(rng, 0.5, prompts=3))
    assert not few.shown and "3 prompts were timed" in few.sentence
    assert speed_up(np.full((2, 9, 1), np.nan)) is None


def a_gate(engine, candidate, prompts=8, base=BASE, **options):
    return make_gate(engine, base, options.pop("baseline", ()), candidate,
                     bundled_prompts(prompts, "postcards"), (0,), **options)


def test_bf16_and_skipped_steps_on_the_bundled_model(engine):
    differences = []
    for candidate in ("torch_dtype=bfloat16", "num_inference_steps=2", "num_inference_steps=1"):
        gate = a_gate(engine, [candidate], reference="baseline", margins={"flip": 0.02},
                      timings=False)
        verdict, findings = conduct(engine, gate)
        (criterion,) = verdict.criteria
        differences.append(criterion.difference)
        assert np.all(findings.values.tables["flip"][0] == 0), "of the baseline to itself"
        assert not findings.values.unequal_noise
    assert gate.names == ("num_inference_steps 3", "num_inference_steps 1")
    assert differences == sorted(differences) and differences[0] > 0
    assert criterion.verdict == WORSE
    made = engine.run_log.count()
    again = conduct(engine, dataclasses.replace(gate))
    assert again[0] == verdict and engine.run_log.count() == made, "nothing is made twice"
    page = report(engine, verdict, findings).decode()
    assert verdict.sentence in page and "FLIP: worse" in page
    assert "https://" not in page and str(engine.home) not in page


def test_a_candidate_is_held_to_the_baselines_converged_picture(engine, monkeypatch):
    monkeypatch.setattr("pipelines.measuring.CONVERGED_BY", ("dpmpp_2m_karras", {}, 4))
    gate = a_gate(engine, ["model_id=postcards-turbo", "num_inference_steps=1"],
                  prompts=8, margins={"rms_latents": 0.05})
    assert gate.study.reference == "converged:model_id+num_inference_steps=postcards+3"
    verdict, findings = conduct(engine, gate)
    runs = findings.values.runs
    for prompt in range(8):
        ids = {run.source_id: place for place, run in runs.items() if place[1] == prompt}
        references = {reference.id: reference for _, reference in engine.run_log.distances(ids)}
        (reference,) = references.values()
        assert (reference.model_id, reference.num_inference_steps) == ("postcards", 4)
    assert verdict.criteria[0].n == 8
    assert verdict.speed_up.n == 8 and "8 pairs" in verdict.speed_up.sentence
    methods = {run.source_id: place[0] for place, run in runs.items()}
    with engine.run_log.database.session() as session:
        order = [methods[run] for run in session.scalars(select(Timing.run_id).order_by(Timing.id))]
    assert order == [0, 1, 1, 0] * 4, "in turns, though they are two models"


@pytest.mark.parametrize(("candidate", "options", "part"), [
    ([], {}, "candidate: received none"),
    (["num_inference_steps=3"], {}, "which the baseline has already"),
    (["num_inference_steps=1,2"], {}, "received 2 values of num_inference_steps"),
    (["seed=3"], {}, "prompts and seeds are for both"),
    (["nix=3"], {}, "received 'nix'"),
    (["eta=0.5", "eta=0.7"], {}, "each once"),
    (["scheduler_options.use_karras_sigmas=true"], {}, "which the baseline leaves open"),
    (["num_inference_steps=2"], {"reference": "baseline", "margins": {"psnr": 1.0}},
     "the PSNR of a picture to itself is infinite"),
])  # fmt: skip
def test_gates_that_are_none(engine, candidate, options, part):
    with pytest.raises(RequestError, match=part):
        a_gate(engine, candidate, **options)


def test_settings_of_candidate_and_baseline(engine):
    gate = a_gate(engine, ["scheduler=unipc", "num_inference_steps=2"],
                  baseline=["scheduler=euler", "eta=0"])
    assert gate.names == ("scheduler Euler, num_inference_steps 3",
                          "scheduler UniPC, num_inference_steps 2")
    assert gate.study.measures == ("psnr", "flip", "judge", "time")
    option = "scheduler_options.use_karras_sigmas"
    gate = a_gate(engine, [f"{option}=true"], baseline=["scheduler=euler", f"{option}=false"])
    assert [request.scheduler_options for request in gate.study.requests] == [
        {"use_karras_sigmas": False}, {"use_karras_sigmas": True}]


def test_margins_from_text():
    assert parse_margins("psnr=0.3, flip") == {"psnr": 0.3, "flip": MARGINS["flip"].value}
    for text, part in (("", "received ''"), ("psnr=x", "a number above 0, in dB"),
                       ("flip=0", "a number above 0"), ("flip=inf", "above 0"),
                       ("time=1", "accepted NAME"), ("flip,flip", "twice"),
                       ("nix:f=1", "nix:f cannot be imported")):
        with pytest.raises(RequestError, match=part):
            parse_margins(text)


def test_the_command(run, tmp_path):
    arguments = ["gate", "--candidate", "num_inference_steps=1", "--num-inference-steps", "3",
                 "--guidance-scale", "1", "--prompts", "bundled:8", "--reference", "baseline",
                 "--json"]
    code, out, errors = run(*arguments, "--margin", "flip=0.01", "--no-timings", "-o", "g.html")
    shown = json.loads(out)
    assert (code, shown["verdict"]) == (1, WORSE), errors
    assert shown["criteria"][0]["measure"] == "flip" and shown["speed_up"] is None
    assert shown["sentence"] in (tmp_path / "g.html").read_text("utf-8")
    code, out, _ = run("gate", "--resume", shown["study_id"], "--margin", "flip=0.9", "--json")
    assert (code, json.loads(out)["verdict"]) == (0, EQUAL)
    code, out, _ = run(*arguments[:-1], "--margin", "judge", "--no-timings")
    assert code == 3 and "not decided" in out
    for further, part in ((["--margin", "nix"], "accepted NAME"),
                          (["--reference", "x"], "received 'x'"),
                          (["--resume", "nix"], "--candidate"),
                          (["a cat"], "unexpected extra argument"),
                          (["--baseline", "nix.json"], "NAME=VALUES")):
        code, out, errors = run(*arguments, *further)
        assert (code, out) == (2, "") and part.lower() in errors.lower()


def test_pictures_of_another_version(run, tmp_path):
    """A recipe's pictures are those of the log; a page holds its own."""
    colours = ("red", "blue", "green", "pink", "white", "yellow", "orange", "purple")
    prompts = "||".join(f"a {colour} cat" for colour in colours)
    code, out, errors = run("compare", "a red cat", "--axis", f"prompt={prompts}",
                            "--num-inference-steps", "1", "--guidance-scale", "1", "--html",
                            "before.html", "--json")
    assert code == 0, errors
    code, out, errors = run("gate", "--baseline", "before.html", "--margin", "flip,ssim", "--json")
    shown = json.loads(out)
    assert (code, shown["verdict"]) == (0, EQUAL), errors
    assert [criterion["n"] for criterion in shown["criteria"]] == [8, 8]
    assert "made at another time" in " ".join(shown["notes"])
    code, out, errors = run("gate", "--baseline", "before.html", "--candidate",
                            "num_inference_steps=4", "--margin", "flip", "-o", "g.html")
    assert code == 1 and "worse" in out, errors
    assert "before.html, as recorded" in (tmp_path / "g.html").read_text("utf-8")
    for further, part in ((["--candidate", "prompt=a"], "prompts and seeds"),
                          (["--margin", "psnr"], "accepted against recorded pictures flip"),
                          (["--prompts", "bundled:9"], "received --prompts beside it")):
        code, out, errors = run("gate", "--baseline", "before.html", *further)
        assert (code, out) == (2, "") and part in errors

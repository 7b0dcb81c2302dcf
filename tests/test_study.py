"""Studies on the bundled model: what is made, measured, said and written."""

import dataclasses
import io
import json
import sys

import numpy as np
import pytest

from pipelines import RequestError, RunRequest
from pipelines.errors import Cancelled
from pipelines.log_tables import utc_now
from pipelines.study.conduct import conduct
from pipelines.study.design import Study, parse_methods
from pipelines.study.findings import JSON_KEYS, analyse
from pipelines.study.measures import MEASURES
from pipelines.study.outlook import cost, outlook, spreads_in_log
from pipelines.study.prompts import Prompt, bundled_prompts, parse_prompts, read_prompts
from pipelines.study.report import pair_rows, report
from pipelines.study.rows import study_row, study_rows
from pipelines.study.user_measures import register_setting
from pipelines.study.values import LiveStudy, Values

BASE = RunRequest(num_inference_steps=1, guidance_scale=1)


@pytest.fixture
def quick(monkeypatch):
    """A reference of few steps."""
    monkeypatch.setattr("pipelines.measuring.CONVERGED_BY", ("dpmpp_2m_karras", {}, 4))


def a_study(axes=("scheduler=ddim,euler",), prompts=8, seeds=(0,), base=BASE, **options):
    return Study(base, parse_methods(axes, base), bundled_prompts(prompts, "postcards"), seeds,
                 **options)


def made_up(tables, prompts=40, seeds=2, categories=("",), **options):
    """Values that nobody measured, of methods named A, B, ..."""
    names = [f"scheduler={','.join(('ddim', 'euler', 'unipc')[:len(tables['rms_latents'])])}"]
    study = Study(BASE, parse_methods(names, BASE), tuple(
        Prompt(f"prompt {n}", categories[n % len(categories)]) for n in range(prompts)),
        tuple(range(seeds)), measures=tuple(tables), **options)
    runs = dict.fromkeys(np.ndindex(len(study.methods), prompts, seeds))
    return Values(study, "done", runs, tables, 0, ())


def test_methods_prompts_and_seeds_are_cells_of_an_ordinary_comparison():
    study = a_study(("scheduler=ddim,euler", "num_inference_steps=2,3"), 70, (5, 6, 7, 8))
    assert study.methods == ("DDIM 2 steps", "DDIM 3 steps", "Euler 2 steps", "Euler 3 steps")
    assert [len(comparison.cells) for comparison in study.comparisons] == [992, 128]
    assert study.comparison_ids == (study.id, f"{study.id}-2")
    for comparison, places in zip(study.comparisons, study.places, strict=True):
        for cell, (method, prompt, seed) in zip(comparison.cells, places, strict=True):
            request = cell.request
            assert (request.prompt, request.seed) == (study.prompts[prompt].text, 5 + seed)
            assert request.changed(prompt="", seed=0) == study.requests[method].changed(
                prompt="", seed=0)
    blocks = [(number, cell) for number, cells in study.blocks() for cell in cells]
    assert len(set(blocks)) == len(blocks) == 4 * 70 * 4
    assert Study.from_row(study.row()) == study


def test_rules_leave_methods_out_and_linked_axes_make_some():
    study = a_study(("scheduler=ddim,heun", "num_inference_steps=2,3"),
                    skip=("scheduler=heun,num_inference_steps=3",))
    assert study.methods == ("DDIM 2 steps", "DDIM 3 steps", "Heun 2 steps")
    assert sum(len(cells) for _, cells in study.blocks()) == 3 * 8
    linked = a_study(("scheduler+num_inference_steps=ddim+2,heun+1",))
    assert linked.methods == ("DDIM + 2", "Heun + 1")


@pytest.mark.parametrize(("change", "part"), [
    ({"axes": ("scheduler=ddim",)}, "methods: received 1, accepted 2 to 12"),
    ({"axes": ("num_inference_steps=1..13",)}, "received 13"),
    ({"axes": ("seed=1,2",)}, "received seed on an axis"),
    ({"measures": ("rms",)}, "received rms, accepted some of rms_latents"),
    ({"measures": ("psnr", "psnr")}, "each once"),
    ({"reference": None}, "measured against a reference"),
    ({"reference": "scheduler=heun"}, "no 'heun'"),
    ({"seeds": tuple(range(501))}, "accepted up to 500"),
    ({"seeds": (1, 1)}, "more than once"),
])  # fmt: skip
def test_designs_that_are_none(change, part):
    with pytest.raises(RequestError, match=part):
        assert not a_study(**change).places


def test_prompts_from_lines_and_csv(tmp_path):
    assert parse_prompts("a cat\n\n a dog \n", False) == (Prompt("a cat"), Prompt("a dog"))
    assert parse_prompts('Category,Prompt\npets,"a cat, red"\n', True) == (
        Prompt("a cat, red", "pets"),)
    for text, is_csv, part in (("", False, "no prompts"), ("text\na", True, "the columns text"),
                               ('prompt\n"a', True, "not CSV")):
        with pytest.raises(RequestError, match=part):
            parse_prompts(text, is_csv)
    (tmp_path / "p.csv").write_text("prompt\na cat\n", encoding="utf-8-sig")
    assert read_prompts(str(tmp_path / "p.csv"), "postcards") == (Prompt("a cat"),)
    for source in ("bundled:x", "bundled:0", str(tmp_path / "none.txt"), str(tmp_path)):
        with pytest.raises(RequestError, match="accepted bundled:N"):
            read_prompts(source, "postcards")
    with pytest.raises(RequestError, match="more than once"):
        Study(BASE, parse_methods(["scheduler=ddim,euler"], BASE), (Prompt("a"), Prompt("a")), (0,))


def test_bundled_prompts_suit_the_model():
    from pipelines.postcards.vocabulary import unknown_words

    own, large = bundled_prompts(100, "postcards"), bundled_prompts(80, "some/model")
    assert len({prompt.text for prompt in own}) == 100
    assert not any(unknown_words(prompt.text) for prompt in own)
    assert bundled_prompts(20, "postcards") == own[:20], "what a smaller study made is used again"
    assert len({prompt.text for prompt in large}) == 80
    assert len({prompt.category for prompt in large[:8]}) == 8
    with pytest.raises(RequestError, match="accepted up to bundled:80"):
        bundled_prompts(81, "some/model")


def test_a_study_is_made_measured_and_made_only_once(engine, quick):
    study = a_study(("scheduler=ddim,euler",), measures=("rms_latents", "judge", "time"))
    findings = conduct(engine, study)
    assert findings.as_json().keys() == {"study_id", "methods", "prompts", "seeds", "pairs"}
    by_measure = {pair.measure: pair for pair in findings.pairs}
    assert list(by_measure) == ["rms_latents", "judge", "time"]
    for pair in findings.pairs:
        assert tuple(pair.as_json()) == JSON_KEYS
        assert (pair.a, pair.b, pair.n) == ("DDIM", "Euler", 8)
    rms = by_measure["rms_latents"]
    rows = [row for row in pair_rows(findings) if row["measure"] == "rms_latents"]
    assert rms.difference == pytest.approx(np.mean([row["difference"] for row in rows]))
    assert rms.win_rate == np.mean([row["difference"] < 0 for row in rows])
    assert not findings.values.unequal_noise
    assert study_row(engine.run_log, study.id).status == "done"
    assert [row.id for row in study_rows(engine.run_log)] == [study.id]
    made = engine.run_log.count()
    assert made == 2 * 8 + 8 + 1, "the cells, their references, half the steps of one"
    again = dataclasses.replace(study, id="again", datetime_utc=utc_now())
    expected, in_log = cost(engine, again)
    assert in_log == 16
    assert conduct(engine, again).pairs[0] == findings.pairs[0]
    assert engine.run_log.count() == made
    assert conduct(engine, study).pairs == findings.pairs
    assert spreads_in_log(engine, study)["rms_latents"].pairs == 8
    assert any("by the spread of 8 pairs in the log" in text for text in outlook(engine, study))


def test_a_cancelled_study_keeps_what_is_done_and_goes_on(engine, quick, monkeypatch):
    monkeypatch.setattr("pipelines.study.design.BLOCK_CELLS", 4)
    study, cells = a_study(), []

    def stop():
        if len(cells) > 5:
            raise Cancelled("stopped")

    findings = conduct(engine, study, on_cell=cells.append, check=stop)
    assert study_row(engine.run_log, study.id).status == "cancelled"
    assert findings.sequential and not findings.values.complete
    assert 4 <= len(findings.values.runs) < 16
    assert "cells are made" in findings.notes[0]
    whole = conduct(engine, study)
    assert whole.values.complete and not whole.sequential
    assert study_row(engine.run_log, study.id).status == "done"


def test_a_study_stops_when_it_is_decided(engine, monkeypatch):
    monkeypatch.setattr("pipelines.study.design.BLOCK_CELLS", 16)
    study = a_study(("scheduler=ddim,euler_a,dpmpp_2m",), 24, reference="scheduler=ddim",
                    skip=("scheduler=dpmpp_2m",), measures=("rms_latents",),
                    stop_when_decided=True)
    findings = conduct(engine, study)
    assert findings.sequential and findings.decided
    assert study_row(engine.run_log, study.id).status == "decided"
    assert 2 * 8 <= len(findings.values.runs) < 2 * 24
    assert findings.pairs[0].sentence.startswith("DDIM is closer than Euler a by")
    assert any("confidence sequences" in note for note in findings.notes)
    assert any("by 0.5" in text and "stop when decided" in outlook(engine, study)[-1]
               for text in outlook(engine, dataclasses.replace(study, seeds=(0, 1)))[:1])


def test_what_can_be_told_apart_and_what_cannot():
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (3, 40, 2))
    rms = 0.2 + rng.normal(0, 0.05, (1, 40, 1)) + noise
    rms[0] += 0.03
    findings = analyse(made_up({"rms_latents": rms}, categories=("x", "y", "z")))
    ddim_euler, ddim_unipc, euler_unipc = findings.pairs
    assert ddim_euler.distinguishable and ddim_unipc.distinguishable
    assert ddim_euler.difference == pytest.approx((rms[0] - rms[1]).mean())
    assert ddim_euler.win_rate < 0.2, "of DDIM"
    assert ddim_euler.sentence.startswith("Euler is closer than DDIM by 0.03")
    assert ddim_euler.sentence.endswith("RMS of latents), 80 pairs")
    assert not euler_unipc.distinguishable
    assert euler_unipc.needed > 80
    assert "Euler and UniPC cannot be told apart (RMS of latents): at least" in euler_unipc.sentence
    assert {pair.category for pair in findings.by_category} == {"x", "y", "z"}
    assert not findings.decided
    near = analyse(made_up({"rms_latents": rms}), floor=0.05).pairs[0]
    assert not near.distinguishable and near.needed is None
    assert "no larger than the reference's own error of 0.05" in near.sentence
    few = analyse(made_up({"rms_latents": rms[:, :5]}, prompts=5)).pairs[0]
    assert "5 prompts, and below 8 nothing is told apart" in few.sentence
    equal = analyse(made_up({"rms_latents": np.ones((2, 40, 2))})).pairs[0]
    assert "equal in all 80 pairs" in equal.sentence


def test_what_is_missing_is_said_and_outlying_prompts_are_named():
    rng = np.random.default_rng(1)
    psnr = rng.normal(40, 1, (2, 40, 2))
    psnr[1, 3] += 30
    psnr[0, 0, 0] = np.nan
    tables = {"psnr": psnr, "rms_latents": rng.normal(1, 0.1, (2, 40, 2)),
              "clip_score": np.full((2, 40, 2), np.nan)}
    findings = analyse(made_up(tables))
    assert findings.pairs[0].n == 79
    assert findings.outliers[0].prompt == 3
    assert findings.notes == (
        "psnr is missing for 1 of 160 pictures (equal pictures have none); their pairs are left "
        "out.", "clip_score was not measured: no CLIP is here.")
    assert {pair.measure for pair in findings.pairs} == {"psnr", "rms_latents"}


def test_the_command(run, tmp_path, quick):
    (tmp_path / "p.csv").write_text("category,prompt\n" + "".join(
        f"{'car' if n % 2 else 'cat'},a {colour} {'car' if n % 2 else 'cat'}\n" for n, colour in
        enumerate(("red", "blue", "green", "pink", "white", "yellow", "orange", "purple"))))
    arguments = ["study", "--methods", "scheduler=ddim,euler", "--axis", "num_inference_steps=2",
                 "--prompts", "p.csv", "--seeds", "1", "--guidance-scale", "1", "--measure",
                 "rms_latents,psnr"]
    code, out, errors = run(*arguments, "--dry-run", "--json")
    assert (code, out) == (0, "")
    assert "a true win rate of" in errors and "24 pictures to make" in errors
    code, out, errors = run(*arguments, "-o", "r.html", "--csv", "p1.csv", "--parquet",
                            "p1.parquet", "--json")
    assert code == 0, errors
    shown = json.loads(out)
    assert shown["methods"] == ["DDIM 2 steps", "Euler 2 steps"]
    assert (len(shown["prompts"]), shown["seeds"], len(shown["pairs"])) == (8, [0], 2)
    page = (tmp_path / "r.html").read_text("utf-8")
    assert shown["pairs"][0]["sentence"].replace("'", "&#x27;") in page
    assert "http://" not in page and "https://" not in page and str(tmp_path) not in page
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO((tmp_path / "p1.parquet").read_bytes()))
    assert table.num_rows == 16 == (tmp_path / "p1.csv").read_text().count("\n") - 1
    code, out, _ = run("study", "--resume", shown["study_id"], "--json")
    assert (code, json.loads(out)) == (0, shown)


@pytest.mark.parametrize(("arguments", "part"), [
    (["a red car"], "unexpected extra argument"),
    (["--methods", "scheduler=ddim"], "received 1, accepted 2 to 12"),
    ([], "methods: received none"),
    (["--resume", "nix"], "study nix is not in the log of this machine, which holds none yet"),
    (["--resume", "nix", "--seeds", "3"], "received --seeds beside it"),
    (["--methods", "scheduler=ddim,euler", "--prompts", "no.txt"], "No such file"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, part):
    code, out, errors = run("study", *arguments)
    assert (code, out) == (2, "")
    assert part.lower() in errors.lower()
    assert len(errors.strip().splitlines()) == 1


def test_the_report_holds_no_text_as_html(engine):
    study = dataclasses.replace(a_study(reference="scheduler=ddim"), prompts=(
        Prompt("<script>alert(1)</script>", "<b>"), Prompt("a cat", "c")))
    findings = conduct(engine, study)
    page = report(engine, findings).decode()
    assert "<script>alert" not in page and "<b>" not in page
    assert "cannot be told apart" in page
    assert LiveStudy(engine, study).look().complete


USERS = '''
"""Measures of a user."""
import numpy

def brightness(picture, prompt):
    if "blue" in prompt:
        raise LookupError("no blue here")
    return numpy.asarray(picture).mean()

def apart(picture, reference):
    return abs(numpy.asarray(picture, float) - numpy.asarray(reference, float)).mean()

def apart_is_good(picture, reference):
    return apart(picture, reference)

apart_is_good.more_is_better = True
three = lambda a, b, c: 0.0
number = 5
'''


def test_a_users_own_function_is_a_measure(run, tmp_path, quick, monkeypatch):
    (tmp_path / "users_own.py").write_text(USERS)
    monkeypatch.setattr("sys.path", list(sys.path))
    colours = ("red", "blue", "green", "pink", "white", "yellow", "orange", "purple")
    (tmp_path / "p.txt").write_text("\n".join(f"a {colour} car" for colour in colours))
    names = "users_own:brightness,users_own:apart,users_own:apart_is_good"
    arguments = ["study", "--methods", "scheduler=ddim,euler_a", "--num-inference-steps", "2",
                 "--prompts", "p.txt", "--seeds", "1", "--guidance-scale", "1", "--reference",
                 "scheduler=ddim", "--measure"]
    try:
        code, out, errors = run(*arguments, names, "--csv", "pairs.csv", "--json")
        assert code == 0, errors
        shown = json.loads(out)
        by_measure = {pair["measure"]: pair for pair in shown["pairs"]}
        assert by_measure["users_own:brightness"]["n"] == 7
        apart, good = (by_measure[f"users_own:{name}"] for name in ("apart", "apart_is_good"))
        assert apart["difference"] == good["difference"] < 0, "DDIM is the reference"
        assert (apart["win_rate"], good["win_rate"]) == (1, 0), "which of them is better"
        assert "users_own:brightness, DDIM, 'a blue car', seed 0: LookupError: no blue here" \
            in errors
        assert "users_own:apart" in (tmp_path / "pairs.csv").read_text()
        code, again, errors = run("study", "--resume", shown["study_id"], "--json")
        assert (code, json.loads(again)) == (0, shown), "kept in the log, asked once"
        for name, part in (("users_own:three", "takes 3 arguments"), ("nix:f", "No module named"),
                           ("users_own:nix", "has no attribute"),
                           ("users_own:number", "is a int, accepted a function"), ("nix", "nix")):
            code, out, errors = run(*arguments, name)
            assert (code, out) == (2, "") and part in errors
        monkeypatch.setenv("CONTACT_SHEET_MEASURES", "users_own:apart")
        register_setting()
    finally:
        users = [name for name in MEASURES if ":" in name]
        for name in users:
            del MEASURES[name]
    with pytest.raises(RequestError, match="accepted with CONTACT_SHEET_MEASURES=users_own:apart"):
        a_study(measures=("users_own:apart",))

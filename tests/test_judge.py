"""The judge of the bundled model, and what the model does that its card promises."""

import json
import time
from dataclasses import replace

import pytest
from PIL import Image

from pipelines.postcards import behaviour, judge, vocabulary


@pytest.fixture(scope="module")
def model(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        return model


def test_the_model_paints_what_it_is_asked_for(capsys):
    code = judge.main(["--json", "--count", "24", "--num-inference-steps", "12"])
    shown = capsys.readouterr()
    assert code == 0
    assert len(shown.out.splitlines()) == 1
    report = json.loads(shown.out)
    assert set(report["generated"]) == set(report["real"]) == {"subject", "colour", "scene"}
    assert (report["guidance_scale"], report["captions"], report["seed"]) == (5, 24, 0)
    assert min(report["real"].values()) > 0.95
    assert report["generated"]["subject"] > 0.85
    assert report["generated"]["colour"] > 0.85
    assert report["generated"]["scene"] > 0.9


def test_the_judge_sees_what_was_not_asked_for():
    wanted = judge.held_out_captions(59)
    pictures = judge.paint_wanted(wanted)
    assert min(judge.accuracy(pictures, wanted).values()) > 0.95
    assert max(judge.accuracy(pictures, wanted[1:] + wanted[:1]).values()) < 0.4


def test_the_judge_takes_captions_from_a_file(tmp_path, capsys):
    path = tmp_path / "captions.jsonl"
    rows = [
        {"caption": "a red car on a road", "subject": "car", "colour": "red", "scene": "road"},
        {"caption": "a white cat in snow", "subject": "cat", "colour": "white", "scene": "snow"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    options = ["--captions", str(path), "--num-inference-steps", "2", "--json"]
    sheet = tmp_path / "sheet.png"
    assert judge.main([*options, "--scheduler", "DDIMScheduler", "--sheet", str(sheet)]) == 0
    assert Image.open(sheet).size == (132, 66)
    report = json.loads(capsys.readouterr().out)
    assert report["captions"] == 2
    assert report["generated"].keys() == report["real"].keys() == {"subject", "colour", "scene"}


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{broken", ["line 2", "subject: car, house", "colour: red"]),
        ('["a red car"]', ["line 2", "caption"]),
        ('{"caption": "x", "subject": "car", "colour": "red"}', ["line 2", "scene", "meadow"]),
        (
            '{"caption": "x", "subject": "dragon", "colour": "red", "scene": "sea"}',
            ["line 2", "'dragon'", "mushroom"],
        ),
        (
            '{"caption": "x", "subject": "car", "colour": "teal", "scene": "sea"}',
            ["line 2", "'teal'", "purple"],
        ),
    ],
)
def test_a_bad_caption_line_is_named(tmp_path, capsys, line, wanted):
    path = tmp_path / "captions.jsonl"
    good = '{"caption": "a red car", "subject": "car", "colour": "red", "scene": "road"}'
    path.write_text(f"{good}\n{line}\n")
    assert judge.main(["--captions", str(path), "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    for part in wanted:
        assert part in shown.err


def test_the_judge_takes_the_catalogues_keys_and_class_names(model, capsys):
    made = [
        judge.generate(model, ["a red car"], num_inference_steps=2, scheduler=name)[0].tobytes()
        for name in ("ddim", "DDIMScheduler", "euler")
    ]
    assert made[0] == made[1] != made[2]
    assert judge.main(["--count", "1", "--scheduler", "NoSuchScheduler"]) == 2
    assert "'NoSuchScheduler', accepted ddim, ddpm, pndm" in capsys.readouterr().err


def test_the_judge_sees_every_detail_of_a_painted_picture():
    wanted = judge.detailed_captions(240)
    assert {name for want in wanted for name in want.named} == set(vocabulary.ATTRIBUTES)
    for want in wanted:
        assert vocabulary.unknown_words(want.caption) == []
    real = judge.accuracy(judge.paint_wanted(wanted), wanted)
    assert min(real.values()) > 0.9
    bare = [replace(want, scene=replace(want.scene, extras=frozenset())) for want in wanted]
    without = judge.accuracy(judge.paint_wanted(bare), wanted)
    assert max(without[extra] for extra in vocabulary.EXTRAS) < 0.2


def test_the_judge_prints_its_tables_as_markdown(monkeypatch, capsys):
    monkeypatch.setattr(judge, "TABLE_GUIDANCE_SCALES", (1, 5))
    monkeypatch.setattr(judge, "TABLE_SCHEDULERS", ("ddim",))
    monkeypatch.setattr(judge, "TABLE_STEPS", (1, 2))
    options = ["--count", "4", "--num-inference-steps", "2", "--table"]
    for kind, wanted in (
        ("guidance", ["guidance_scale", "---", "1", "5", "painted pictures"]),
        ("schedulers", ["scheduler", "---", "ddim"]),
    ):
        assert judge.main([*options, kind]) == 0
        rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
        assert [row.split("|")[1].strip() for row in rows] == wanted
        assert len({row.count("|") for row in rows}) == 1
    with pytest.raises(SystemExit):
        judge.main([*options, "guidance", "--json"])
    assert "--table" in capsys.readouterr().err


def test_the_judge_refuses_a_model_without_prompts(capsys):
    assert judge.main(["--count", "1", "--model", "postcards-ddpm"]) == 2
    assert "unconditional" in capsys.readouterr().err


# What the model card promises


def test_guidance_trades_variety_for_colour(model):
    low, middle, high = (
        behaviour.guidance_figures(model, scale, 16, num_inference_steps=10) for scale in (1, 3, 15)
    )
    assert low[0] > middle[0]
    assert low[1] < middle[1] < high[1]
    assert high[2] > 2 * middle[2]


def test_more_steps_come_closer_to_many_steps(model):
    few, more, most = behaviour.distances_to_many_steps(model, "ddim", (2, 10, 50), count=2)
    assert few > 2 * more > 4 * most > 0


@pytest.mark.parametrize("extra", vocabulary.EXTRAS)
def test_a_negative_prompt_removes_a_thing_in_the_scene(model, extra):
    without, with_it = behaviour.extra_shares(model, extra, count=40, num_inference_steps=5)
    assert without >= 2 / 40
    assert with_it <= without / 2


def test_inpainting_paints_another_subject_into_the_mask(model):
    shares, change = behaviour.inpainting_figures(model, count=6)
    assert shares["subject"] > 0.8
    assert change < 6


def test_a_picture_takes_well_under_a_second_of_one_core(model):
    import torch

    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(4):  # the first warms up; what else runs on this machine is not counted
            started = time.thread_time()
            judge.generate(model, ["a red car on a road at night"], guidance_scale=5)
            seconds.append(time.thread_time() - started)
    finally:
        torch.set_num_threads(threads)
    assert min(seconds[1:]) < 1

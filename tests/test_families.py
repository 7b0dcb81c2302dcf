"""Tiny random-weight pipelines of every family, opened by path through the registry."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

from pipelines import Engine, RequestError, RunRequest, cli, measuring
from pipelines.cli.check import causes, check_folder, small_inputs, two_step_request
from pipelines.comparison import Comparison
from pipelines.painting.call import named_in
from pipelines.schedulers import make_scheduler


@pytest.fixture
def folders(tiny_folder):
    """family -> its folder, as a model id."""
    return lambda name: str(tiny_folder(name))


@pytest.fixture(scope="module")
def family_engine(tmp_path_factory):
    return Engine(tmp_path_factory.mktemp("home"), device="cpu")


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


def request_for(engine, model_id, task, **values):
    """A two-step request that a task needs no more than."""
    request = two_step_request(engine, engine.registry.describe(model_id), task)
    return request.changed(**values)


@pytest.mark.parametrize("name", tiny.FAMILIES)
def test_every_family_does_its_tasks(folders, family_engine, stack, name):
    folder = folders(name)
    with family_engine.registry.borrow(folder) as (model, _):
        assert set(model.tasks) == tiny.FAMILIES[name][1]
        assert not model.notes
        stack.enter_context(small_inputs(model.info))
    for task in model.tasks:
        request = request_for(family_engine, folder, task)
        previews = []
        run = family_engine.run(request, lambda step, seen=previews: seen.append(step.preview()))
        assert run.status == "ok", (task, run.error)
        assert run.nfe >= 2
        assert len(run.noise_sha256) == 64
        assert len(previews) == len(run.step_ms)
        if name == "stable_cascade":  # from its scheduler no x0 follows
            assert not run.steps_shown
            continue
        assert len(run.steps_shown) == len(run.step_ms)
        strip = family_engine.pictures.get(run.steps_sha256)
        assert strip.width % len(run.steps_shown) == 0
        assert strip.height <= 128
        picture = np.asarray(family_engine.pictures.get(run.image_sha256))
        assert picture.std() > 0
        assert picture.shape[:2] == (run.height, run.width)
        same = family_engine.run(request)
        assert same.image_sha256 == run.image_sha256
        assert same.noise_sha256 == run.noise_sha256
        again = family_engine.run(request.changed(seed=1, negative_prompt="a dog"))
        assert again.status == "ok", (task, again.error)
        assert again.noise_sha256 != run.noise_sha256
        assert again.image_sha256 != run.image_sha256


@pytest.mark.parametrize(("name", "offered"), [
    ("deepfloyd_if", "ddpm dpmpp_2m dpmpp_2m_karras dpmpp_3m dpmpp_2s dpmpp_2m_sde "
                     "dpmpp_2m_sde_karras sa_solver"),
    ("sd3", "flow_euler flow_heun flow_lcm"),
    ("flux", "flow_euler flow_lcm"),
    ("lumina_2", "flow_euler flow_lcm"),
    ("sana_of_the_hub", "dpmpp_2m dpmpp_3m dpmpp_2s dpmpp_2m_sde unipc flow_euler "
                            "flow_heun flow_lcm"),
    ("cogview3_plus", ""),
    ("pixart_sigma", None), ("dit", None), ("ddpm", None),
])  # fmt: skip
def test_every_scheduler_that_is_offered_runs(folders, family_engine, name, offered):
    info = family_engine.registry.describe(folders(name))
    keys = [scheduler.key for scheduler in info.schedulers]
    assert keys == offered.split() if offered is not None else len(keys) > 10
    if keys:
        request = request_for(family_engine, folders(name), info.tasks[0], num_inference_steps=3)
        comparison = Comparison.parse(request, [f"scheduler={','.join(keys)}"])
        runs = family_engine.compare(comparison, shared=True)
        assert [(run.scheduler, run.error) for run in runs] == [(key, None) for key in keys]


def test_a_scheduler_reads_the_variance_that_the_model_predicts(folders, family_engine):
    config = family_engine.registry.describe(folders("deepfloyd_if")).original_scheduler_config
    assert make_scheduler("ddpm", config).config.variance_type == "learned_range"
    # The class would cut it off after three channels; without it the pipeline does.
    assert make_scheduler("dpmpp_2m", config).config.variance_type is None


def test_a_scheduler_that_serves_flow_matching_too_keeps_what_makes_it_so(folders, family_engine):
    config = family_engine.registry.describe(folders("sana_of_the_hub")).original_scheduler_config
    made = make_scheduler("dpmpp_2m", config).config
    assert (made.use_flow_sigmas, made.flow_shift, made.prediction_type) == (
        True, 3.0, "flow_prediction")


@pytest.mark.parametrize("name", ["sd3", "flux", "sana"])
def test_flow_matching_families_share_their_noise_across_schedulers(folders, family_engine, name):
    runs = [
        family_engine.run(request_for(family_engine, folders(name), "text-to-image",
                                      scheduler=key))
        for key in ("flow_euler", "flow_lcm")
    ]
    assert [run.status for run in runs] == ["ok", "ok"], [run.error for run in runs]
    assert runs[0].noise_sha256 == runs[1].noise_sha256


def test_a_scheduler_of_another_family_is_refused_before_it_runs(folders, family_engine):
    request = request_for(family_engine, folders("sd3"), "text-to-image", scheduler="ddim")
    with pytest.raises(RequestError, match="flow_euler"):
        family_engine.check(request)
    assert family_engine.run(request).status == "failed"


def test_a_model_with_a_scheduler_of_its_own_kind_keeps_it(folders, family_engine):
    folder = folders("playground_v25")
    assert family_engine.registry.describe(folder).schedulers == ()
    request = request_for(family_engine, folder, "text-to-image", scheduler="euler")
    with pytest.raises(RequestError, match="accepted for this model: default"):
        family_engine.check(request)


def test_a_consistency_model_runs_its_own_schedulers_and_has_no_converged_picture(
    folders, family_engine
):
    base = request_for(family_engine, folders("lcm"), "text-to-image")
    keys = [info.key for info in family_engine.registry.describe(folders("lcm")).schedulers]
    assert keys == ["lcm"]
    comparison = Comparison.parse(base, ["seed=0,1"])
    runs = family_engine.compare(comparison)
    assert [run.status for run in runs] == ["ok", "ok"]
    for find in (measuring.measure, measuring.references_to_make):
        with pytest.raises(RequestError, match="'converged', .* runs lcm only; accepted a"):
            find(family_engine, comparison, runs, "converged")


def test_a_flow_matching_model_comes_closer_to_its_converged_picture(folders, family_engine):
    base = request_for(family_engine, folders("flux"), "text-to-image")
    comparison = Comparison.parse(base, ["num_inference_steps=4,8"])
    runs = family_engine.compare(comparison)
    few, many = measuring.measure(family_engine, comparison, runs, "converged")
    assert 0 < many.rms_latents < few.rms_latents


def test_a_task_that_a_model_cannot_do_names_those_it_can(folders, family_engine):
    request = RunRequest(model_id=folders("ddpm"), prompt="a cat", num_inference_steps=2)
    run = family_engine.run(request)
    assert run.status == "failed"
    assert "'text-to-image', accepted" in run.error
    assert "unconditional" in run.error


def test_models_check_reports_each_folder_and_the_exit_code(folders, tmp_path, capsys):
    for name in ("sd", "ddpm"):
        shutil.copytree(folders(name), tmp_path / name)
    command = ["models", "--check", str(tmp_path), "--json"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(command)
    ddpm, sd = json.loads(capsys.readouterr().out)
    assert (ddpm["pipeline_class"], sd["pipeline_class"]) == ("DDPMPipeline",
                                                              "StableDiffusionPipeline")
    assert ddpm["results"] == {"unconditional": "ok"}
    assert sd["results"] == dict.fromkeys(tiny.FAMILIES["sd"][1], "ok")

    broken = tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors"
    broken.write_bytes(broken.read_bytes()[:1000])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "model_index.json").write_text('{"_class_name": "MyPipeline"}')
    with pytest.raises(SystemExit, match="1"):
        cli.main(command)
    _, foreign, sd = json.loads(capsys.readouterr().out)
    assert "MyPipeline" in foreign["error"]
    assert "no whole safetensors file" in sd["error"]
    assert not foreign["ok"]
    assert not sd["ok"]

    with pytest.raises(SystemExit, match="2"):
        cli.main(["models", "--check", str(tmp_path / "nothing")])


def test_a_controlnet_needs_its_control_image_and_follows_it(folders, family_engine):
    request = request_for(family_engine, folders("controlnet"), "text-to-image")
    with pytest.raises(RequestError, match="control_image: .* needs one"):
        family_engine.check(request.changed(control_image=None))
    white = family_engine.pictures.put(Image.new("RGB", (64, 64), "white"))
    runs = [family_engine.run(r) for r in (request, request.changed(control_image=white))]
    assert runs[0].noise_sha256 == runs[1].noise_sha256
    assert runs[0].image_sha256 != runs[1].image_sha256
    with pytest.raises(RequestError, match="control_image: .* takes none"):
        family_engine.check(request.changed(model_id=folders("sd")))


def test_a_class_label_decides_the_picture(folders, family_engine):
    request = request_for(family_engine, folders("dit"), "unconditional")
    with pytest.raises(RequestError, match="class_label: DiTPipeline needs one"):
        family_engine.check(request.changed(class_label=None))
    runs = [family_engine.run(r) for r in (request, request.changed(class_label=1))]
    assert runs[0].noise_sha256 == runs[1].noise_sha256
    assert runs[0].image_sha256 != runs[1].image_sha256


def test_a_picture_that_the_safety_checker_blacks_out_says_so(tmp_path, family_engine):
    tiny.stable_diffusion_15(blind=False).save_pretrained(tmp_path)
    run = family_engine.run(request_for(family_engine, str(tmp_path), "text-to-image"))
    assert any("safety checker" in note for note in run.notes)
    assert not np.asarray(family_engine.pictures.get(run.image_sha256)).any()


@pytest.mark.parametrize(("cls", "reason"), [
    ("WanPipeline", "makes video"), ("StableAudioPipeline", "makes sound"),
    ("KandinskyV22ControlnetPipeline", "needs image_embeds, negative_image_embeds, hint"),
    ("LEditsPPPipelineStableDiffusion", "the `invert` method has to be called beforehand"),
    ("LEditsPPPipelineStableDiffusionXL", "the `invert` method has to be called beforehand"),
    ("StableDiffusionDiffEditPipeline", "Use `invert()` to compute `image_latents`"),
    ("VisualClozePipeline", "either `task_prompt` + `content_prompt`"),
    ("StableDiffusionGLIGENPipeline", "takes more than a request can give: it needs gligen_phras"),
    ("MyPipeline", "diffusers has no pipeline MyPipeline"),
])  # fmt: skip
def test_what_makes_no_picture_is_refused_in_one_line(tmp_path, family_engine, cls, reason):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": cls}))
    result = check_folder(family_engine, tmp_path)
    assert result.pipeline_class == cls
    assert reason.lower() in result.error.lower()
    assert not result.ok


def test_a_refiner_that_does_not_say_that_it_is_one_is_refused(folders, tmp_path, family_engine):
    shutil.copytree(folders("sdxl_refiner"), tmp_path / "refiner")
    index = tmp_path / "refiner" / "model_index.json"
    index.write_text(index.read_text("utf-8").replace('score": true', 'score": false'), "utf-8")
    result = check_folder(family_engine, tmp_path / "refiner")
    assert 'asks for "requires_aesthetics_score": true' in result.error


def test_the_check_names_the_first_cause():
    assert causes({32: "dtypes differ", 64: "dtypes differ"}) == "dtypes differ"
    assert causes({32: "dtypes differ", 64: "too large"}) == (
        "at 32 px: dtypes differ; at 64 px: too large")


def test_the_check_keeps_the_input_picture_small_and_says_so(folders, family_engine):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as module

    enlarged_size = module.calculate_dimensions
    result = check_folder(family_engine, Path(folders("qwen_image_edit")))
    assert result.results == dict.fromkeys(tiny.FAMILIES["qwen_image_edit"][1], "ok")
    assert "QwenImageEditPipeline: its input picture was enlarged to 64 x 64" in str(result.notes)
    assert module.calculate_dimensions is enlarged_size


def test_the_check_names_the_error_of_every_size(folders, tmp_path, family_engine):
    """Too few places for the prompt: at any size the same error, which is said once."""
    shutil.copytree(folders("lumina_2"), tmp_path / "lumina")
    config = tmp_path / "lumina" / "transformer" / "config.json"
    config.write_text(config.read_text("utf-8").replace("300", "30"), "utf-8")
    result = check_folder(family_engine, tmp_path / "lumina")
    assert result.results["text-to-image"].count("out of bounds") == 1


def test_a_decoder_without_its_prior_says_what_is_missing(folders, tmp_path, family_engine):
    parts = tiny.build("kandinsky_22").components
    tiny.d.KandinskyV22Pipeline(**{name: parts[name] for name in ("unet", "scheduler", "movq")}
                                ).save_pretrained(tmp_path)  # fmt: skip
    result = check_folder(family_engine, tmp_path)
    assert "second stage of KandinskyV22CombinedPipeline" in result.error


def test_omnigen_is_told_where_its_picture_stands():
    assert named_in("make it red") == "<img><|image_1|></img> make it red"
    assert named_in("a <img><|image_1|></img> hat") == "a <img><|image_1|></img> hat"

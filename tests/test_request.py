import pytest

from pipelines import RequestError, RunRequest
from pipelines.fields import PICTURES
from pipelines.request import TO_COME, Lora, join_model_id


def test_round_trip_through_json():
    request = RunRequest(
        prompt="two blue boats, at sunset", scheduler="dpmpp_2m", seed=2**40,
        scheduler_options={"use_karras_sigmas": True, "solver_order": 3, "solver_type": "heun"},
        guidance_scale=7.5, height=64, width=128,
    )  # fmt: skip
    assert RunRequest.model_validate_json(request.model_dump_json()) == request


def test_frozen():
    with pytest.raises(Exception, match="frozen"):
        RunRequest().seed = 3


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"guidance_scale": -1}, ["guidance_scale", "-1", "0 to 100"]),
        ({"guidance_scale": float("nan")}, ["guidance_scale", "nan"]),
        ({"num_inference_steps": 0}, ["num_inference_steps", "0", "1 to 1000"]),
        ({"num_inference_steps": 2.5}, ["2.5", "whole number"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"height": 100_000}, ["height", "100000", "4096"]),
        ({"eta": 2}, ["eta", "2", "0 to 1"]),
        ({"scheduler": "eular"}, ["scheduler", "'eular'", "euler", "ddim"]),
        ({"task": "sing"}, ["task", "'sing'", "text-to-image"]),
        ({"prompt": "x" * 20_000}, ["prompt", "20000", "10000"]),
        ({"sampler": "ddim"}, ["sampler", "scheduler"]),
        ({"task": "image-to-image"}, ["needs an image"]),
        ({"task": "inpainting", "image": "a" * 64}, ["mask_image"]),
        ({"image": "a" * 64}, ["text-to-image", "image"]),
        ({"image": "../../etc/x"}, ["image", "'../../etc/x'", "SHA-256", "64 hex digits"]),
    ],
)
def test_errors_show_what_was_received_and_what_works(values, parts):
    with pytest.raises(RequestError) as error:
        RunRequest(**values)
    assert all(part in str(error.value) for part in parts), str(error.value)


@pytest.mark.parametrize("field", PICTURES)
@pytest.mark.parametrize("name", [
    "../../etc/x", "/etc/passwd", "a", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "", " " + "a" * 64,
    "a" * 64 + "\n", "a" * 60 + "/../", "to come\n", "To come", "\0" * 64, 7, ["a" * 64],
])  # fmt: skip
def test_a_picture_has_no_other_name_than_its_sha256(field, name):
    task = {"task": "image-to-image", "image": TO_COME}
    with pytest.raises(RequestError, match=field):
        RunRequest(**{**task, field: name})
    if field != "mask_image":
        for right in ("0123456789abcdef" * 4, TO_COME):
            assert getattr(RunRequest(**{**task, field: right}), field) == right


def test_too_small_a_strength_names_one_that_works():
    values = {"task": "image-to-image", "image": "a" * 64, "num_inference_steps": 20}
    with pytest.raises(RequestError, match=r"at least 0\.05"):
        RunRequest(**values, strength=0.04)
    assert RunRequest(**values, strength=0.05).strength == 0.05


def test_changed_validates_again():
    request = RunRequest(seed=1)
    assert request.changed(seed="5").seed == 5
    with pytest.raises(RequestError, match="seed"):
        request.changed(seed="five")


def test_an_adapter_that_is_a_file_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("rank=8.safetensors", "rank=16", "a+b.safetensors", "x=0.5", " y "):
        (tmp_path / name).touch()

    def read(loras):
        return [(lora.path, lora.weight) for lora in RunRequest(loras=loras).loras]

    assert read(["rank=8.safetensors"]) == [("rank=8.safetensors", 1)]
    assert read(["rank=8.safetensors = 0.5"]) == [("rank=8.safetensors", 0.5)]
    assert read(["rank=16"]) == [("rank=16", 1)] and read(["rank=4"]) == [("rank", 4)]
    assert read("a+b.safetensors") == [("a+b.safetensors", 1)]
    assert read("c+b.safetensors=2") == [("c", 1), ("b.safetensors", 2)]
    assert read(["x=0.5", " y ", " z "]) == [("x=0.5", 1), (" y ", 1), ("z", 1)]
    for lora in (Lora(path="x", weight=0.5), Lora(path="rank=4"), Lora(path="rank=16=2")):
        assert RunRequest(loras=[str(lora)]).loras == (lora,)
    with pytest.raises(RequestError, match="'rank=32.safetensors'|'32.safetensors'.*number"):
        RunRequest(loras=["rank=32.safetensors"])


@pytest.mark.parametrize(("values", "part"), [
    ({"seed": 10**5000}, "seed.*0 to 9223372036854775807"),
    ({"seed": "9" * 5000}, "seed.*0 to 9223372036854775807"),
    ({"scheduler_options": {"solver_order": 10**30}}, "scheduler_options.solver_order.*whole"),
    ({"prompt": "\ud800"}, "prompt"),
    ({"scheduler": "x" * 5000}, "scheduler"),
])  # fmt: skip
def test_values_that_nothing_holds_are_refused_in_our_own_words(values, part):
    with pytest.raises(RequestError, match=part) as raised:
        RunRequest(**values)
    assert len(str(raised.value)) < 1500


def test_a_revision_may_hold_what_git_allows():
    request = RunRequest(model_id="ada/sd@feature+x,y:fp16")
    assert (request.model_id, request.revision, request.variant) == ("ada/sd", "feature+x,y",
                                                                     "fp16")
    assert join_model_id("ada/sd", "feature+x,y", "fp16") == "ada/sd@feature+x,y:fp16"

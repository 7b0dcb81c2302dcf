"""Values that are not finite, wherever they begin, and pictures that show nothing."""

import math
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pipelines import Comparison, RunRequest
from pipelines.models.files import BUNDLED


@pytest.fixture
def changed_model(engine, tmp_path):
    """(part, change) -> a run of the bundled model whose part's tensors `change` has changed."""
    folder = shutil.copytree(BUNDLED["postcards"], tmp_path / "model")

    def request(part, change):
        (file,) = (folder / part).glob("*.safetensors")
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})
        return RunRequest(model_id=str(folder), prompt="a red car", num_inference_steps=2, seed=1)

    yield request
    engine.registry.unload(str(folder))


def put_nan(name):
    def change(tensors):
        tensors[name].view(-1)[0] = math.nan

    return change


def test_a_decoder_that_gives_nan_fails_the_run(engine, changed_model):
    request = changed_model("vae", put_nan("decoder.conv_out.bias"))
    for run in (engine.run(request),
                *engine.compare(Comparison.parse(request, ["seed=1,2"]), shared=True)):
        assert run.status == "failed"
        assert "vae.decode (AutoencoderKL) gave values that are not finite" in run.error
        assert "weights" in run.error


def test_a_text_encoder_is_named_where_it_began(engine, changed_model):
    run = engine.run(changed_model(
        "text_encoder", lambda tensors: put_nan(next(n for n in tensors if "bias" in n))(tensors)))
    assert run.status == "failed"
    assert "text_encoder (CLIPTextModel" in run.error


def test_an_encoder_of_pictures_is_named_where_it_began(engine, changed_model, picture):
    request = changed_model("vae", put_nan("encoder.conv_in.bias"))
    run = engine.run(request.changed(task="image-to-image", image=picture, strength=0.5))
    assert "vae.encode (AutoencoderKL) gave values that are not finite" in run.error
    assert engine.run(request).status == "ok", "text-to-image does not call it"


def test_a_decoder_that_overflows_in_float16_names_other_dtypes(engine, changed_model):
    def near_the_end(tensors):
        tensors["decoder.conv_out.bias"].fill_(65500)
        tensors["decoder.conv_out.weight"].mul_(1000)

    request = changed_model("vae", near_the_end)
    full, half = engine.compare(Comparison.parse(request, ["torch_dtype=float32,float16"]))
    assert full.status == "ok"
    assert half.status == "failed"
    assert "vae.decode" in half.error and "not finite" in half.error
    assert "bfloat16 or float32" in half.error


@pytest.mark.parametrize(
    ("bias", "colour"),
    [([-5, -5, -5], "black"), ([0, 0, 0], "RGB (128, 128, 128)"), ([1, -1, -1], "RGB (255, 0, 0)")])
def test_a_picture_of_one_colour_is_noted(engine, changed_model, bias, colour):
    def paint(tensors):
        tensors["decoder.conv_out.weight"].zero_()
        tensors["decoder.conv_out.bias"][:] = tensors["decoder.conv_out.bias"].new_tensor(bias)

    run = engine.run(changed_model("vae", paint))
    assert run.status == "ok"
    assert run.notes == [f"the picture is of one colour: {colour}"]


def test_a_model_of_pixels_is_checked_too(engine, tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder("ddpm"), tmp_path / "pixels")
    (file,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(file)
    put_nan("conv_out.bias")(tensors)
    save_file(tensors, file, {"format": "pt"})
    run = engine.run(RunRequest(model_id=str(folder), task="unconditional", num_inference_steps=2))
    assert run.status == "failed"
    assert "not finite" in run.error
    engine.registry.unload(str(folder))

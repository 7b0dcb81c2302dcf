"""What a draw costs, as counts: pictures decoded, files read, cells made; no times."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageFile

import pipelines
from pipelines import Comparison, RunRequest
from pipelines.comparison import forecast
from pipelines.errors import LoadError, StorageError
from pipelines.models.info import describe

WEIGHTS = Path(pipelines.__file__).parent / "postcards" / "weights"
BASE = RunRequest(prompt="a red car on a road", num_inference_steps=2)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of the pictures that were decoded from files, in order."""
    sizes, load = [], ImageFile.ImageFile.load

    def counted(image):
        if image.tile:  # empty once it was decoded
            sizes.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    return sizes


def test_the_size_of_a_picture_is_read_without_decoding_it(engine, decoded):
    sha = engine.pictures.put(Image.new("RGB", (120, 80)))
    assert engine.pictures.size(sha) == (120, 80)
    assert engine.pictures.size(sha) == (120, 80)
    assert decoded == []
    assert engine.pictures.get(sha).size == (120, 80)
    assert decoded == [(120, 80)], "the count counts"
    engine.pictures.path(sha).unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        engine.pictures.size(sha)


def test_which_cells_are_in_the_log_is_found_without_decoding_their_pictures(engine, decoded):
    image = engine.pictures.put(Image.new("RGB", (72, 100), "red"))
    mask = Image.new("L", (72, 100))
    mask.paste(255, (8, 8, 40, 40))
    inpainting = BASE.changed(task="inpainting", image=image, strength=0.5,
                              mask_image=engine.pictures.put(mask))
    from_image = BASE.changed(task="image-to-image", image=image, strength=0.5)
    for base in (inpainting, from_image):
        run = engine.run(base, keep_latents=True)
        assert run.status == "ok", run.error
        decoded.clear()
        comparison = Comparison.parse(base, ["seed=0..29"])
        assert engine.in_log(comparison) == [0]
        assert decoded == []
    assert (run.width, run.height) == (72, 96), "the picture's own, rounded down"
    engine.pictures.path(image).unlink()
    assert engine.in_log(comparison) == [], "without its picture it cannot be made"


@pytest.fixture
def described(engine, monkeypatch):
    """The models whose files were looked at, in order."""
    asked, describe = [], type(engine.registry).describe

    def counted(registry, model_id, *rest):
        asked.append(model_id)
        return describe(registry, model_id, *rest)

    monkeypatch.setattr(type(engine.registry), "describe", counted)
    return asked


def test_a_forecast_looks_at_each_model_once(engine, described):
    comparison = Comparison.parse(BASE, ["model_id=postcards,postcards-ddpm,no/such", "seed=0..99"])
    expected = forecast([cell.request for cell in comparison.cells], engine.run_log,
                        engine.registry)
    assert expected.nfe == 600
    assert described == ["postcards", "postcards-ddpm", "no/such"]


class ConfigReads:
    """Names of the JSON files that this process opens, as the interpreter itself reports them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.listening = False
        sys.addaudithook(self.hear)  # cannot be removed again

    def hear(self, event: str, arguments: tuple) -> None:
        if self.listening and event == "open" and str(arguments[0]).endswith(".json"):
            self.names.append(os.path.basename(arguments[0]))


config_reads = ConfigReads()


@pytest.fixture
def read_configs():
    """The config files that were opened, in order."""
    config_reads.names.clear()
    config_reads.listening = True
    yield config_reads.names
    config_reads.listening = False


def test_a_model_is_read_once_until_a_file_of_it_changes(tmp_path, read_configs):
    folder = tmp_path / "model"
    shutil.copytree(WEIGHTS, folder)
    first = describe(str(folder))
    assert read_configs.count("model_index.json") == 1
    read_configs.clear()
    assert describe(str(folder)) is first
    assert first.schedulers and not first.needs_prior
    assert read_configs == []

    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 48}))
    assert describe(str(folder)).height == 48 * 4
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LoadError, match="no weights"):
        describe(str(folder))

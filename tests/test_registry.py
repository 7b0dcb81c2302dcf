import json
import shutil
import subprocess
import sys
import threading

import pytest

from pipelines import Engine, RequestError, RunRequest
from pipelines.errors import LoadError, UnknownModelError
from pipelines.hardware import best_device
from pipelines.models.files import BUNDLED
from pipelines.models.registry import Registry


def test_tasks_are_views_of_the_same_weights(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        views = [model.view(task) for task in ("text-to-image", "image-to-image", "inpainting")]
        assert len({type(view) for view in views}) == 3
        for part in ("unet", "vae", "text_encoder"):
            pointers = {tuple(p.data_ptr() for p in getattr(view, part).parameters())
                        for view in views}
            assert len(pointers) == 1, part


def test_a_runs_scheduler_leaves_the_shared_pipeline_unchanged(session_engine):
    with session_engine.registry.borrow("postcards") as (model, _):
        shared = model.views["text-to-image"]
        before, config = shared.scheduler, dict(shared.config)
        session_engine.run(RunRequest(prompt="a cat", scheduler="heun", num_inference_steps=2))
        assert shared.scheduler is before
        assert dict(shared.config) == config
        assert not shared.unet._forward_pre_hooks


def test_one_load_for_many_threads():
    registry = Registry("cpu")
    loads = []

    def borrow():
        with registry.borrow("postcards") as (model, fresh):
            loads.append((id(model), fresh))

    threads = [threading.Thread(target=borrow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({model for model, _ in loads}) == 1
    assert sorted(fresh for _, fresh in loads) == [False, False, False, True]


def test_load_is_paid_by_the_first_run_only(tmp_path):
    engine = Engine(tmp_path, device="cpu")
    request = RunRequest(prompt="a cat", num_inference_steps=1)
    first, second = engine.run(request), engine.run(request)
    assert first.load_ms > 0
    assert second.load_ms == 0


def test_a_folder_is_a_model_too(tmp_path, engine):
    folder = tmp_path / "mine"
    shutil.copytree(BUNDLED["postcards"], folder)
    run = engine.run(RunRequest(prompt="a cat", model_id=str(folder), num_inference_steps=2))
    assert run.status == "ok", run.error


def test_unknown_model_says_what_would_work():
    with pytest.raises(UnknownModelError, match="nobody/nothing.*postcards"):
        Registry("cpu").describe("nobody/nothing")


@pytest.mark.parametrize("name", ["../x y", "a/b/c", "?", "~nobody-here/x", "a" * 400, "a\0b"])
def test_strange_ids_are_unknown_models(name):
    with pytest.raises(UnknownModelError):
        Registry("cpu").describe(name)


def broken(tmp_path, change):
    folder = tmp_path / "broken"
    shutil.copytree(BUNDLED["postcards"], folder)
    change(folder)
    return str(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "model_index.json").unlink(),
        lambda folder: (folder / "model_index.json").write_text("{ not json"),
        lambda folder: (folder / "model_index.json").write_text("{}"),
        lambda folder: (folder / "model_index.json").write_text("[]"),
        lambda folder: (folder / "unet" / "config.json").write_text("[]"),
        lambda folder: (folder / "unet" / "config.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink(),
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x"),
        lambda folder: shutil.rmtree(folder / "vae"),
    ],
    ids=["no index", "broken index", "empty index", "a list for an index",
         "a list for a config", "broken config", "no weights",
         "half-downloaded weights", "no vae"],
)  # fmt: skip
def test_broken_folders_give_one_clear_error(tmp_path, change):
    folder = broken(tmp_path, change)
    with pytest.raises(LoadError) as error, Registry("cpu").borrow(folder):
        pass
    assert str(tmp_path) in str(error.value)
    assert len(str(error.value)) < 800


def test_pickles_are_refused(tmp_path):
    def only_pickle(folder):
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        weights.rename(weights.with_name("diffusion_pytorch_model.bin"))

    folder = broken(tmp_path, only_pickle)
    with pytest.raises(LoadError, match="pickle"), Registry("cpu").borrow(folder):
        pass


def test_description_is_read_without_torch():
    code = (
        "import sys, json; from pipelines import Engine; "
        "from pipelines.models.registry import Registry;"
        "i = Registry('cpu').describe('postcards'); loaded = {'torch', 'diffusers'} & "
        "set(sys.modules); print(json.dumps([i.height, i.default_scheduler, sorted(loaded)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    height, scheduler, loaded = json.loads(done.stdout)
    assert height >= 64
    assert scheduler == "dpmpp_2m"
    assert loaded == []


def test_the_models_used_longest_ago_go_first(tmp_path):
    folders = []
    for name in "abc":
        shutil.copytree(BUNDLED["postcards"], tmp_path / name)
        folders.append(str(tmp_path / name))
    with Registry("cpu").borrow(folders[0]) as (model, _):
        size = model.size_bytes
    registry = Registry("cpu", max_bytes=int(2.5 * size))

    def loads(folder):
        with registry.borrow(folder) as (_, fresh):
            return fresh

    a, b, c = folders
    assert [loads(folder) for folder in (a, b, a, c)] == [True, True, False, True]
    assert not loads(a)  # b went, not a
    assert loads(b)


def test_a_folder_by_two_names_is_one_model(tmp_path, monkeypatch):
    shutil.copytree(BUNDLED["postcards"], tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    registry = Registry("cpu")
    with registry.borrow("mine") as (one, _), registry.borrow(str(tmp_path / "mine")) as (two, new):
        assert one is two
        assert not new


def test_a_device_that_is_not_there_is_a_clear_error(monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_DEVICE", "warp")
    best_device.cache_clear()
    try:
        with pytest.raises(RequestError, match="'warp', accepted cpu"):
            best_device()
    finally:
        best_device.cache_clear()

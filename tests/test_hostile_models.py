"""Model folders and files that mean harm or are broken: only our own errors come of them, and one
of them never takes a list down. Nothing here needs torch."""

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

import pytest
from repositories import cached_model

from pipelines import cli
from pipelines.errors import LoadError, PipelineError, StorageError
from pipelines.hub.cache import cached_pipelines, cached_revisions, damaged_entries
from pipelines.hub.folders import LocalFolders, local_models, offered_models
from pipelines.hub.plan import HubFile, make_plan
from pipelines.models.files import BUNDLED, find_lora
from pipelines.models.identity import model_content
from pipelines.models.info import describe
from pipelines.models.placement import loaded_bytes
from pipelines.models.reading import MAX_TEXT, checkpoint_shapes, read_json
from pipelines.models.registry import Registry

CASES = 1000
CONFIGS = ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
           "scheduler/scheduler_config.json", "controlnet/config.json")
READ = ("sample_size", "in_channels", "patch_size", "all_patch_size", "block_out_channels",
        "encoder_block_out_channels", "temperal_downsample", "_class_name", "prediction_type",
        "num_mode", "extra_condition_channels", "guidance_embeds", "time_cond_proj_dim",
        "timestep_spacing", "use_flow_sigmas", "_call_defaults", "is_distilled", "unet",
        "transformer", "requires_aesthetics_score", "num_inference_steps")  # fmt: skip
DEEP = 100_000
VALUES = (
    None, True, False, 0, 1, -1, 3, 64, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308, float("nan"),
    float("inf"), "", "abc", "64", "x" * 5000, "\ud800", "\0", "a\nb", "../..", "/etc", "__class__",
    [], [1], [0], ["a"], [[64]], [64, 64], [64, 64, 64], [None, None], [-1, -1], [1e9, 2],
    list(range(3000)), {}, {"a": 1}, {"num_inference_steps": "x"}, {"guidance_scale": [1]},
    {"num_inference_steps": 10**30}, [["os"], "system"], [{"a": 1}, "UNet2DModel"], ["os", ["x"]],
    ["diffusers", None], ["diffusers", 7], [1, 2], ["diffusers", "UNet2DModel", "x"],
    ["transformers", "CLIPTextModel"], ["diffusers", "x" * 5000],
)  # fmt: skip
TEXTS = (
    b"", b"{", b"[]", b"null", b"1", b'"a"', b"[" * DEEP, b'{"a":' * DEEP, b"[" * 300 + b"]" * 300,
    b"\xff\xfe", b"\xef\xbb\xbf{}", '{"_class_name": "é"}'.encode("utf-16"), b"\0" * 100,
    b'{"a": ' + b"9" * 6000 + b"}", b'{"_class_name": "\\ud800"}', b'{"a": 1e999}', b"{} {}",
    b"PK\x03\x04", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
)  # fmt: skip
ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
ENTRIES = (
    {}, [], None, 7, "x", {**ENTRY, "data_offsets": []}, {**ENTRY, "data_offsets": [0]},
    {**ENTRY, "data_offsets": [16, 0]}, {**ENTRY, "data_offsets": [-16, 0]},
    {**ENTRY, "data_offsets": ["0", "16"]}, {**ENTRY, "data_offsets": [0, 1 << 70]},
    {**ENTRY, "data_offsets": [0.0, 16.0]}, {**ENTRY, "data_offsets": [False, 16]},
    {**ENTRY, "data_offsets": {"0": 1}}, {**ENTRY, "shape": "x"}, {**ENTRY, "shape": [-2, -2]},
    {**ENTRY, "shape": [2**62] * 40}, {**ENTRY, "shape": [2] * 5000}, {**ENTRY, "shape": [[2]]},
    {**ENTRY, "shape": None}, {**ENTRY, "dtype": ["F32"]}, {**ENTRY, "dtype": "F99"},
    {**ENTRY, "shape": [3, 3]}, {**ENTRY, "data_offsets": [8, 24]}, ENTRY,
)  # fmt: skip


def weights(header=None, data=16, length=None):
    header = json.dumps({"a": ENTRY} if header is None else header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + b"\0" * data


HEADERS = (
    *(lambda entry=entry: weights({"a": entry}) for entry in ENTRIES),
    *(lambda entry=entry: weights({"a": ENTRY, "b": entry}, 32) for entry in ENTRIES),
    *(lambda value=value: weights(value) for value in (None, [], "a", 7, {"__metadata__": 7})),
    lambda: weights(data=3), lambda: weights(data=99), lambda: weights(length=0),
    lambda: weights(length=1), lambda: weights(length=2**63), lambda: weights(length=10**9),
    *(lambda text=text: struct.pack("<Q", len(text)) + text for text in TEXTS),
    lambda: b"", lambda: b"\x80\x04", lambda: b"\0" * 8,
)


@pytest.fixture
def model(tmp_path):
    """A folder with the configs of a model, weights of one tensor, and the same as one file."""
    folder = tmp_path / "model"
    shutil.copytree(BUNDLED["postcards"], folder,
                    ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"),
                       ("vae", "diffusion_pytorch_model")):
        (folder / part / f"{name}.safetensors").write_bytes(weights())
    (tmp_path / "model.safetensors").write_bytes(weights())
    return folder


def use(model_id):
    """Whatever lists and pages ask of a model before it is opened."""
    info = describe(model_id)
    for task in info.tasks:
        info.extra_inputs(task)
    assert info.schedulers is not None
    assert all(side is None or isinstance(side, int) for side in (info.height, info.width))
    assert isinstance(info.num_inference_steps, int)
    assert loaded_bytes(info, "float32") >= 0
    assert len(model_content(info)) == 64


def own_error(action, *args):
    """The error of ours that an action ends with; any other passes through."""
    try:
        action(*args)
    except PipelineError as error:
        assert len(str(error)) < 2000
        assert str(error).isprintable(), str(error)
        return error
    return None


def spoiled_value(chance, folder, _):
    """A value of a config file, at its top or below, becomes another one."""
    path = folder / chance.choice(CONFIGS)
    config = json.loads(path.read_text()) if path.exists() else {}
    if chance.random() < 0.7:
        config[chance.choice(READ)] = chance.choice(VALUES)
    else:
        config[chance.choice([*config, "new"])] = chance.choice(VALUES)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(config))
    if path.name == "model_index.json":
        files = [HubFile(file.relative_to(folder).as_posix(), 1, "0" * 40)
                 for file in folder.rglob("*") if file.is_file()]
        own_error(make_plan, "nobody/x", "main", "0" * 40, files, json.loads(path.read_text()))


def spoiled_name(chance, folder, _):
    """A part of the model gets a name that leads elsewhere."""
    path = folder / "model_index.json"
    name = chance.choice(["..", "../model", "/", "/etc", "", ".", "a\0b", "\ud800", "x" * 5000])
    path.write_text(json.dumps(json.loads(path.read_text())
                               | {name: chance.choice(VALUES[-2:])}))


def spoiled_text(chance, folder, _):
    path = folder / chance.choice(CONFIGS)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(chance.choice(TEXTS))


def spoiled_header(chance, folder, checkpoint):
    data = chance.choice(HEADERS)()
    for path in (chance.choice(sorted(folder.rglob("*.safetensors"))), checkpoint):
        path.write_bytes(data)


def spoiled_index(chance, folder, _):
    """A list of shards whose entries are no names."""
    value = chance.choice([*VALUES, {"a": ["x"]}, {"a": "../x"}, {"a": "x.safetensors"}])
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        json.dumps({"weight_map": value}))


def spoiled_file(chance, folder, checkpoint):
    """A file is gone, cut off, a folder, a link to nothing or to itself, or a pipe."""
    path = chance.choice([*sorted(file for file in folder.rglob("*") if file.is_file()),
                          checkpoint])
    data = path.read_bytes()
    path.unlink()
    match chance.randrange(6):
        case 0:
            path.write_bytes(data[: chance.randrange(len(data) + 1)])
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to("nothing")
        case 3:
            path.symlink_to(path.name)
        case 4:
            os.mkfifo(path)


SPOIL = (spoiled_value, spoiled_value, spoiled_name, spoiled_text, spoiled_header, spoiled_index,
         spoiled_file)


def restored(root, files, time_ns):
    """Make the files what they were, at a time that tells them from those of the case before."""
    for path in root.rglob("*"):
        if path not in files and (path.is_symlink() or not path.is_dir()):
            path.unlink()
    for path, data in files.items():
        if path.is_dir():
            path.rmdir()
        elif path.is_symlink() or not path.is_file():
            path.unlink(missing_ok=True)
        elif path.read_bytes() == data:
            continue
        path.write_bytes(data)
        os.utime(path, ns=(time_ns, time_ns))


def test_of_hostile_models_come_only_our_own_errors(model, tmp_path):
    checkpoint = tmp_path / "model.safetensors"
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    errors, slowest = 0, 0.0
    assert own_error(use, str(model)) is own_error(use, str(checkpoint)) is None
    for case in range(CASES):
        restored(tmp_path, files, case)
        chance = random.Random(case)
        spoil = chance.choice(SPOIL)
        started = time.perf_counter()
        try:
            spoil(chance, model, checkpoint)
            errors += own_error(use, str(model)) is not None
            own_error(use, str(checkpoint))
        except Exception as error:
            pytest.fail(f"case {case}, {spoil.__name__}: {type(error).__name__}: {error}"[:500])
        slowest = max(slowest, time.perf_counter() - started)
    assert 0.4 * CASES < errors < 0.95 * CASES
    assert slowest < 5


@pytest.mark.parametrize(("change", "reason"), [
    ({"sample_size": "abc"}, "sample_size: received 'abc', accepted a whole number from 1"),
    ({"sample_size": -64}, "sample_size: received -64"),
    ({"sample_size": [[64], 64]}, "sample_size: received"),
    ({"sample_size": 10**9}, "sample_size: received 1000000000"),
    ({"patch_size": "x"}, "patch_size: received 'x'"),
])  # fmt: skip
def test_a_value_of_a_wrong_type_is_named(model, change, reason):
    path = model / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LoadError, match=reason) as error:
        describe(str(model))
    assert "unet/config.json" in str(error.value)


def test_a_list_for_a_library_is_refused(model):
    path = model / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unet": [["diffusers"], "UNet"]}))
    with pytest.raises(LoadError, match=r"names a part 'unet' of \[\['diffusers'\], 'UNet'\]"):
        describe(str(model))


def test_a_header_is_not_read_beyond_its_bound(tmp_path):
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 90_000_000))
        file.truncate(95_000_000)
    started = time.perf_counter()
    with pytest.raises(LoadError, match=f"90000000 bytes, accepted up to {MAX_TEXT}"):
        checkpoint_shapes(path)
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(90_000_000)
    with pytest.raises(LoadError, match=f"90000000 bytes, accepted up to {MAX_TEXT}"):
        read_json(tmp_path / "config.json")
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize(("data", "reason"), [
    (weights({"a": {**ENTRY, "data_offsets": []}}), "the entry of 'a' in its header is not sound"),
    (weights({"a": ENTRY, "b": {**ENTRY, "data_offsets": [8, 24]}}, 32), "'b' starts at byte 8"),
    (weights(data=4), r"it has \d+ of \d+ bytes; download it again"),
    (struct.pack("<Q", DEEP) + b"[" * DEEP, "nested deeper than"),
], ids=["no offsets", "overlap", "cut off", "nested"])  # fmt: skip
def test_a_broken_header_is_told(tmp_path, data, reason):
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(LoadError, match=reason):
        checkpoint_shapes(tmp_path / "x.safetensors")


# --- one bad entry never takes a list down


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    return tmp_path / "cache"


def dangling(path):
    path.unlink()
    path.symlink_to("nothing")


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [dangling, a_folder])
@pytest.mark.parametrize("file", [
    "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors", "tokenizer/tokenizer_config.json",
])  # fmt: skip
def test_a_damaged_model_is_incomplete_and_the_others_work(
    model, cache, tmp_path, capsys, file, damage
):
    snapshot = cached_model(cache, model)
    cached_model(cache, model, "nobody/whole")
    registered = shutil.copytree(model, tmp_path / "mine")
    home = LocalFolders(tmp_path / "home")
    registry = Registry("cpu")
    home.add(str(registered), registry)
    damage(snapshot / file)
    damage(registered / file)
    models = {model.model_id: model for model in local_models(registry, tmp_path / "home", cache)}
    assert set(models) >= {"nobody/whole", "postcards", str(registered)}
    for model_id in (str(registered), *(["nobody/model"] if "nobody/model" in models else ())):
        assert "is not complete" in models[model_id].obstacle, models[model_id]
        assert file in models[model_id].obstacle
    assert models["nobody/whole"].obstacle is models["postcards"].obstacle is None
    if damage is dangling:
        assert "nobody/model" in models
        assert any("nobody--model" in problem for problem in damaged_entries(cache))
    assert [revision.model_id for revision in cached_revisions(cache)][-1] == "nobody/whole"

    with pytest.raises(SystemExit, match="0"):
        cli.main(["models", "--json"])
    output = capsys.readouterr()
    listed = {model["model_id"]: model for model in json.loads(output.out)}
    assert file in listed[str(registered)]["problem"]
    assert listed["nobody/whole"]["problem"] is None
    assert f"note: {registered} is not complete" in output.err


def test_a_file_that_may_not_be_read_is_told(tmp_path):
    """In a process of its own, which gives up the rights of the administrator."""
    code = """
import os, shutil, sys, tempfile
from pathlib import Path
from pipelines.errors import LoadError
from pipelines.models.files import BUNDLED
from pipelines.models.info import describe
with tempfile.TemporaryDirectory() as root:
    os.chmod(root, 0o755)
    for name in ("model_index.json", "vae/config.json", "tokenizer/tokenizer.json",
                 "unet/diffusion_pytorch_model.safetensors", "unet"):
        folder = Path(root) / name.replace("/", "_")
        shutil.copytree(BUNDLED["postcards"], folder)
        describe(str(folder))
        os.chmod(folder / name, 0)
        user = os.getuid()
        if user == 0:
            os.setresuid(65534, 65534, 0)
        try:
            describe(str(folder))
        except LoadError as error:
            assert str(folder) in str(error), error
        else:
            sys.exit(f"{name} was read")
        os.setresuid(user, user, user)
        os.chmod(folder / name, 0o755)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_damage_to_what_is_not_read_is_no_matter(model):
    (model / "README.md").symlink_to("nothing")
    (model / "unet" / "diffusion_pytorch_model.bin").symlink_to("nothing")
    (model / "unet" / "diffusion_pytorch_model.fp16.safetensors").symlink_to("nothing")
    assert describe(str(model)).variant is None
    with pytest.raises(LoadError, match="fp16.safetensors is a link to nothing"):
        describe(str(model), variant="fp16")


def test_a_file_deleted_while_it_is_read_is_a_load_error(model):
    info = describe(str(model))
    shutil.rmtree(model)
    for action in (lambda: model_content(info), lambda: loaded_bytes(info, "float32")):
        own = own_error(action)
        assert own is None or isinstance(own, LoadError)


@pytest.mark.parametrize("text", [
    b"[" * DEEP, b"[]", b'{"folders": "abc"}', b'{"folders": [1]}', b"\xff\xfe", b"{}",
], ids=["nested", "list", "text", "number", "no text", "empty"])  # fmt: skip
def test_a_broken_list_of_folders_hides_no_other_model(cache, tmp_path, capsys, text):
    home = tmp_path / "home"
    home.mkdir()
    (home / "models.json").write_bytes(text)
    with pytest.raises(StorageError, match="models.json cannot be read"):
        LocalFolders(home).paths()
    assert offered_models(home, cache) == list(BUNDLED)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["models"])
    output = capsys.readouterr()
    assert "postcards" in output.out
    assert "models.json cannot be read" in output.err


def test_a_branch_that_is_no_text_hides_no_other_model(model, cache):
    cached_model(cache, model, "nobody/whole")
    broken = cached_model(cache, model).parents[1] / "refs" / "main"
    broken.write_bytes(b"\xff\xfe\x80")
    assert cached_pipelines(cache) == ["nobody/whole"]
    with pytest.raises(LoadError, match="nobody/model cannot be read"):
        describe("nobody/model")
    with pytest.raises(StorageError, match="cannot be read"):
        cached_revisions(cache)


def test_a_lora_is_found_in_the_cache_beside_broken_models(cache, tmp_path, model):
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "style.safetensors").write_bytes(weights())
    snapshot = cached_model(cache, lora, "nobody/lora")
    dangling(cached_model(cache, model) / "model_index.json")
    assert find_lora("nobody/lora") == find_lora("nobody/lora/style.safetensors")
    assert find_lora("nobody/lora").parent == snapshot
    dangling(snapshot / "style.safetensors")
    with pytest.raises(LoadError, match="lora: received 'nobody/lora/style.safetensors'"):
        find_lora("nobody/lora/style.safetensors")

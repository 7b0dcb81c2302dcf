"""Real transfers from a local Hub into a real cache."""

import errno
import json
import shutil
import threading

import pytest
from fakehub import FakeHub
from huggingface_hub import try_to_load_from_cache

from pipelines.errors import HubError, RefusedError, StorageError
from pipelines.hub import download as downloads
from pipelines.hub.cache import PARTIAL, checksum, repo_folder
from pipelines.hub.client import Hub
from pipelines.hub.download import Downloads

WAIT = 60
UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def fake(tmp_path, tiny_folder):
    """A Hub with one model, ada/sd, that also holds what nobody needs."""
    folder = tmp_path / "root" / "ada" / "sd"
    shutil.copytree(tiny_folder("sd"), folder)
    for name in ("unet/diffusion_pytorch_model.bin", "sd-full.safetensors", "vae/model.onnx",
                 "unet/diffusion_pytorch_model.fp16.safetensors", "unet/flax_model.msgpack",
                 "text_encoder/pytorch_model.bin.index.json", ".gitattributes"):  # fmt: skip
        (folder / name).write_bytes(b"not needed")
    (folder / "README.md").write_text("# A card")
    with FakeHub(tmp_path / "root") as fake:
        yield fake


@pytest.fixture
def hub(fake, tmp_path):
    return Hub(fake.url, tmp_path / "cache", token=False)


def fetch(hub, model_id="ada/sd", **options):
    """Download a model and wait for the end of it."""
    download = Downloads().start(hub, hub.details(model_id, **options).plan)
    assert download.finished.wait(WAIT)
    return download


def partials(hub):
    return sorted(hub.cache_dir.rglob(f"*{PARTIAL}"))


def test_a_download_lands_in_the_normal_cache_and_opens_offline(fake, hub, tmp_path):
    download = fetch(hub)
    assert (download.status, download.error) == ("done", None)
    assert download.done == download.total == download.plan.size_bytes
    found = try_to_load_from_cache("ada/sd", "model_index.json", hub.cache_dir)
    assert found and fake.commit("ada/sd") in found

    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(
        "ada/sd", cache_dir=hub.cache_dir, local_files_only=True, use_safetensors=True)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert hub.details("ada/sd").model.here == "yes"
    assert not partials(hub)


def test_only_what_the_pipeline_needs_is_fetched(fake, hub):
    fetch(hub)
    got = {asked.path.split("/", 5)[-1] for asked in fake.fetched("/resolve/")}
    assert UNET in got and "tokenizer/tokenizer.json" in got and "README.md" in got
    unwanted = {".bin", ".onnx", ".msgpack", ".gitattributes", "fp16", "sd-full"}
    assert not [name for name in got for part in unwanted if part in name]
    cached = [path.name for path in repo_folder(hub.cache_dir, "ada/sd").rglob("snapshots/*/*/*")]
    assert len(cached) == len([name for name in got if "/" in name])


def test_a_broken_transfer_goes_on_where_it_stopped(fake, hub):
    cut = fake.fault(r"/blobs/.*unet.*\.safetensors", cut=20_000)
    assert fetch(hub).status == "done"
    assert cut.times == 0
    ranges = [asked.range for asked in fake.fetched(f"/blobs/ada/sd/{UNET}")]
    assert ranges == [None, "bytes=20000-"]


def test_a_download_resumes_after_it_gave_up_and_in_another_process(fake, hub, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    fake.fault(r"/blobs/.*unet.*\.safetensors", cut=30_000)
    fake.fault(r"/blobs/.*unet.*\.safetensors", status=503, times=99)
    download = fetch(hub)
    assert download.status == "failed"
    assert "503" in download.error and "what is here is kept" in download.error
    assert 30_000 in [path.stat().st_size for path in partials(hub)]
    for revision in ("main", fake.commit("ada/sd")):  # half a model is no model
        assert not try_to_load_from_cache("ada/sd", "model_index.json", hub.cache_dir, revision)

    fake.faults.clear()
    again = fetch(Hub(fake.url, hub.cache_dir, token=False))  # nothing but the disk is remembered
    assert again.status == "done"
    assert fake.fetched(f"/blobs/ada/sd/{UNET}")[-1].range == "bytes=30000-"


def test_a_server_without_ranges_sends_all_again(fake, hub):
    fake.fault(r"/blobs/.*unet", cut=20_000)
    fake.fault(r"/blobs/.*unet", no_range=True)
    assert fetch(hub).status == "done"


def test_a_damaged_transfer_is_found_and_fetched_again(fake, hub):
    fake.fault(r"/blobs/.*unet", damage=True)
    assert fetch(hub).status == "done"
    assert len(fake.fetched(f"/blobs/ada/sd/{UNET}")) == 2
    blob = repo_folder(hub.cache_dir, "ada/sd") / "snapshots" / fake.commit("ada/sd") / UNET
    assert checksum(blob, blob.resolve().name) == blob.resolve().name


def test_a_transfer_damaged_every_time_is_refused(fake, hub):
    fake.fault(r"/blobs/.*unet", damage=True, times=99)
    download = fetch(hub)
    assert download.status == "failed"
    assert "unet" in download.error and "checksum" in download.error
    damaged = next(file.etag for file in download.plan.files if file.path == UNET)
    assert not [path for path in partials(hub) if path.name.startswith(damaged)]


def test_a_file_of_the_wrong_size_in_the_cache_is_fetched_again(fake, hub):
    fetch(hub)
    blob = next(repo_folder(hub.cache_dir, "ada/sd").rglob(f"snapshots/*/{UNET}")).resolve()
    blob.write_bytes(b"short")
    assert hub.details("ada/sd").model.here == "partly"
    assert fetch(hub).status == "done"
    assert checksum(blob, blob.name) == blob.name


def test_pause_acts_inside_a_file_and_resume_goes_on(fake, hub):
    hold = fake.fault(r"/blobs/.*unet", hold=40_000)
    pool = Downloads()
    download = pool.start(hub, hub.details("ada/sd").plan)
    until(lambda: any(one.done == 40_000 for one in download.files))
    until(lambda: fake.fetched("/blobs/ada/sd/vae"))
    assert pool.start(hub, download.plan) is download and len(pool.all()) == 1
    download.pause()
    assert download.status == "paused"  # at once, although the server is silent
    assert not download.finished.is_set()
    assert download.pace() is None
    hold.go.set()
    assert pool.start(hub, download.plan) is download  # a second click resumes it
    assert download.finished.wait(WAIT)
    assert (download.status, download.done) == ("done", download.total)
    assert fake.fetched(f"/blobs/ada/sd/{UNET}")[-1].range == "bytes=40000-"


def test_cancel_removes_the_parts(fake, hub):
    fake.fault(r"/blobs/.*unet", hold=40_000)
    download = Downloads().start(hub, hub.details("ada/sd").plan)
    until(lambda: any(one.done == 40_000 for one in download.files))
    assert partials(hub)
    download.cancel()
    assert download.finished.is_set() and download.status == "cancelled"
    assert not partials(hub)
    assert not try_to_load_from_cache("ada/sd", "model_index.json", hub.cache_dir)


def test_speed_and_time_left_are_told(fake, hub):
    fake.fault(r"/blobs/.*unet", rate=100_000)
    download = Downloads().start(hub, hub.details("ada/sd").plan)
    until(download.eta_seconds)
    assert 0 < download.pace() < 10_000_000
    assert 0 < download.fraction < 1
    download.cancel()


def test_a_full_disk_is_said_before_the_first_byte(fake, hub, monkeypatch):
    plan = hub.details("ada/sd").plan
    monkeypatch.setattr(downloads, "free_bytes", lambda folder: downloads.SPARE + 1000)
    with pytest.raises(StorageError, match="200 MB free.*HF_HOME"):
        Downloads().start(hub, plan)
    assert not fake.fetched("/blobs/")


def test_a_disk_that_fills_up_keeps_what_is_there(fake, hub, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads.Download, "_stream", full)
    download = fetch(hub)
    assert download.status == "failed"
    assert "is full" in download.error and "resume" in download.error


def test_too_many_requests_wait_as_long_as_the_hub_asks(fake, hub):
    fake.fault(r"/resolve/.*unet.*safetensors", status=429, headers={"Retry-After": "1"})
    fake.fault(r"/resolve/.*vae.*safetensors", status=500)
    assert fetch(hub).status == "done"


def test_the_token_goes_to_the_hub_and_nowhere_else(fake, tmp_path):
    fake.accounts["hf_secret"] = "ada"
    hub = Hub(fake.url, tmp_path / "cache", token="hf_secret")
    assert hub.account() == "ada"
    assert fetch(hub).status == "done"
    assert {asked.token for asked in fake.asked if asked.server == "cdn"} == {None}
    assert "hf_secret" in {asked.token for asked in fake.asked if asked.server == "hub"}


def test_a_gated_model_says_what_to_accept_and_where(fake, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    fake.meta["ada/sd"] = {"gated": "auto"}
    nobody = Hub(fake.url, tmp_path / "cache", token=False)
    details = nobody.details("ada/sd")
    assert (details.model.gated, details.model.pipeline_class) == (
        "auto", "StableDiffusionPipeline")
    assert details.plan.size_bytes > 0  # told before one has access
    download = fetch(nobody)
    assert download.status == "failed"
    assert f"{fake.url}/ada/sd" in download.error and "hf auth login" in download.error

    fake.accounts["hf_secret"] = "ada"
    known = Hub(fake.url, tmp_path / "cache", token="hf_secret")
    assert "accept its conditions" in fetch(known).error
    fake.granted.add("ada")
    assert fetch(known).status == "done"


def test_two_downloads_of_one_model_fetch_it_once(fake, hub):
    hold = fake.fault(r"/blobs/.*unet", hold=1000)
    plan = hub.details("ada/sd").plan
    one = Downloads().start(hub, plan)
    until(lambda: fake.fetched("/blobs/ada/sd/unet"))
    two = Downloads().start(Hub(fake.url, hub.cache_dir, token=False), plan)
    until(lambda: "another program" in two.message)
    hold.go.set()
    assert one.finished.wait(WAIT) and two.finished.wait(WAIT)
    assert (one.status, two.status) == ("done", "done")
    assert len(fake.fetched(f"/blobs/ada/sd/{UNET}")) == 1


def test_pickles_are_refused_before_anything_is_fetched(fake, hub):
    folder = fake.root / "ada" / "sd" / "unet"
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "diffusion_pytorch_model.fp16.safetensors").unlink()
    details = hub.details("ada/sd")
    assert details.plan is None
    assert "pickle (unet/diffusion_pytorch_model.bin)" in details.model.obstacle


def test_a_single_file_and_its_name(fake, hub):
    folder = fake.root / "ada" / "loose"
    folder.mkdir()
    (folder / "small.safetensors").write_bytes(b"1" * 100)
    (folder / "large.safetensors").write_bytes(b"2" * 200)
    assert hub.details("ada/loose").plan.main_file == "large.safetensors"
    download = fetch(hub, "ada/loose", filename="small.safetensors")
    assert download.status == "done"
    assert try_to_load_from_cache("ada/loose", "small.safetensors", hub.cache_dir)
    with pytest.raises(RefusedError, match="small.safetensors"):
        from pipelines.hub.plan import checkpoint_file

        checkpoint_file(hub.details("ada/loose").files, "other.safetensors")


def test_another_variant_is_another_plan(fake, hub):
    plan = hub.details("ada/sd", variant="fp16").plan
    names = [file.path for file in plan.files if file.path.startswith("unet/")]
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in names and UNET not in names
    assert VAE in [file.path for file in plan.files]  # it has no fp16 weights
    assert plan.variants == (None, "fp16")
    assert "accepted none (plain weights), fp16" in hub.details("ada/sd", variant="bf16"
                                                               ).model.obstacle


def test_a_new_commit_is_another_revision(fake, hub):
    old = fake.commit("ada/sd")
    fetch(hub)
    (fake.root / "ada" / "sd" / "README.md").write_text("# Another card")
    assert hub.details("ada/sd").model.here == "partly"
    assert fetch(hub).status == "done"
    refs = repo_folder(hub.cache_dir, "ada/sd") / "refs" / "main"
    assert refs.read_text() == fake.commit("ada/sd") != old
    assert len(fake.fetched(f"/blobs/ada/sd/{UNET}")) == 1
    with pytest.raises(HubError, match="no 'elsewhere'"):
        hub.details("ada/sd", "elsewhere")


def test_a_file_system_without_links_holds_each_file_once(fake, hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert fetch(hub).status == "done"
    folder = repo_folder(hub.cache_dir, "ada/sd")
    assert not list((folder / "blobs").iterdir())
    assert hub.details("ada/sd").model.here == "yes"
    assert json.loads(next(folder.rglob("model_index.json")).read_text())["_class_name"]


def until(condition):
    """Wait until a condition of another thread holds."""
    tick, value = threading.Event(), None
    for _ in range(WAIT * 100):
        if value := condition():
            return value
        tick.wait(0.01)
    raise AssertionError("it never happened")

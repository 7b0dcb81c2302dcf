"""Search, plans, cards, the local cache and the command line, against a local Hub."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakehub import FakeHub
from huggingface_hub import constants
from repositories import INDEX, small_repo

from pipelines import cli
from pipelines.errors import HubError, OfflineError, PipelineError
from pipelines.hub.cache import (
    PARTIAL,
    cached_pipelines,
    cached_revisions,
    damaged_files,
    delete_revisions,
    forget_files,
    freed_bytes,
    leftovers,
    repo_folder,
)
from pipelines.hub.client import Hub
from pipelines.hub.download import Downloads
from pipelines.hub.folders import LocalFolders, local_details, offered_models
from pipelines.hub.pictures import example_pictures
from pipelines.hub.search import PAGE, HubQuery, HubSearch
from pipelines.models.files import BUNDLED
from pipelines.models.registry import Registry

WAIT = 60
PAGE_OF_CARD = "http://hub.example/ada/sd"


@pytest.fixture
def fake(tmp_path):
    """A Hub with a few models of every kind."""
    root = tmp_path / "root"
    small_repo(root, "ada/small")
    small_repo(root, "ada/large", b"w" * 500_000)
    small_repo(root, "grace/closed")
    folder = small_repo(root, "grace/pickled")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
        folder / "unet" / "diffusion_pytorch_model.bin")
    small_repo(root, "kurt/film")
    small_repo(root, "kurt/strange", index={**INDEX, "_class_name": "NobodysPipeline"})
    with FakeHub(root) as fake:
        fake.meta = {
            "ada/small": {"downloads": 10, "likes": 3, "cardData": {"license": "mit"},
                          "pipeline_tag": "unconditional-image-generation"},
            "ada/large": {"downloads": 500, "likes": 1, "trendingScore": 9,
                          "cardData": {"license": "apache-2.0", "base_model": "ada/small"}},
            "grace/closed": {"gated": "manual"},
            "kurt/film": {"pipeline_tag": "text-to-video"},
            "kurt/strange": {"library_name": "odd"},
        }  # fmt: skip
        yield fake


@pytest.fixture
def hub(fake, tmp_path):
    return Hub(fake.url, tmp_path / "cache", token=False)


def found(hub, **query):
    return [model.model_id for model in HubSearch(hub, HubQuery(**query)).page(1)]


@pytest.mark.parametrize("query, expected", [
    ({"text": "SMALL"}, ["ada/small"]),
    ({"author": "grace"}, ["grace/closed", "grace/pickled"]),
    ({"task": "text-to-video"}, ["kurt/film"]),
    ({"library": "odd"}, ["kurt/strange"]),
    ({"licence": "mit"}, ["ada/small"]),
    ({"gated": True}, ["grace/closed"]),
    ({"gated": False, "author": "grace"}, ["grace/pickled"]),
    ({"base_model": "ada/small"}, ["ada/large"]),
    ({"max_bytes": 10_000, "author": "ada"}, ["ada/small"]),
    ({"text": "nothing of that name"}, []),
])  # fmt: skip
def test_each_filter_filters(hub, query, expected):
    assert sorted(found(hub, **query)) == expected


@pytest.mark.parametrize("sort, first", [
    ("trending", "ada/large"), ("downloads", "ada/large"), ("likes", "ada/small"),
])  # fmt: skip
def test_results_are_sorted(hub, sort, first):
    assert found(hub, author="ada", sort=sort)[0] == first


def test_a_result_says_what_one_wants_to_know(hub):
    models = {model.model_id: model for model in HubSearch(hub, HubQuery(library=None)).page(1)}
    small = models["ada/small"]
    assert (small.pipeline_class, small.task, small.licence, small.downloads, small.here) == (
        "DDPMPipeline", "unconditional-image-generation", "mit", 10, "no")
    assert small.obstacle is None and small.safetensors and small.gated is None
    assert small.size_bytes == hub.details("ada/small").plan.size_bytes > 1000
    assert models["ada/large"].base_models == ("ada/small",)
    assert models["grace/closed"].gated == "manual"
    assert "pickle" in models["grace/pickled"].obstacle
    assert not models["grace/pickled"].safetensors
    assert "text-to-video" in models["kurt/film"].obstacle
    assert "NobodysPipeline" in models["kurt/strange"].obstacle


def test_pages_follow_the_link_of_the_one_before(fake, hub):
    for number in range(2 * PAGE + 3):
        folder = fake.root / "many" / f"m{number:02d}"
        folder.mkdir(parents=True)
        (folder / "a.safetensors").write_bytes(b"1")
    search = HubSearch(hub, HubQuery(author="many"))
    pages = [[model.model_id for model in search.page(number)] for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [PAGE, PAGE, 3]
    assert len({name for page in pages for name in page}) == 2 * PAGE + 3
    assert search.has_more(1) and search.has_more(2) and not search.has_more(3)
    assert len(fake.fetched("/api/models?")) == 3


def test_no_small_model_is_lost_between_pages_of_large_ones(fake, hub):
    for number in range(7 * PAGE):
        folder = fake.root / "many" / f"m{number:03d}"
        folder.mkdir(parents=True)
        small = number in (3, 7 * PAGE - 1)
        (folder / "a.safetensors").write_bytes(b"1" * (10 if small else 1000))
    search, seen, number = HubSearch(hub, HubQuery(author="many", max_bytes=100)), [], 1
    while number == 1 or search.has_more(number - 1):
        seen += [model.model_id for model in search.page(number)]
        number += 1
    assert sorted(seen) == ["many/m003", "many/m139"]


def test_a_foreign_next_page_is_not_followed(fake, hub):
    search = HubSearch(hub, HubQuery())
    assert search._on_this_hub("http://evil.example/api/models?cursor=1").startswith(fake.url)


@pytest.mark.parametrize("fault, words", [
    ({"status": 429, "headers": {"Retry-After": "30"}}, "429.*in 30 s"),
    ({"status": 500}, "trouble of its own .500"),
    ({"status": 403}, "token lacks the right"),
    ({"status": 401}, "refused the token"),
    ({"status": 418}, "answered 418"),
])
def test_what_the_hub_answers_is_said_in_words(fake, hub, fault, words):
    fake.fault("/api/models", **fault)
    with pytest.raises(HubError, match=words):
        found(hub)


def test_an_answer_that_is_no_json_is_an_error_in_words(fake, hub, monkeypatch):
    monkeypatch.setattr(fake, "info", lambda *_: {"no": "id"} | {
        "id": "x/y", "author": "x", "tags": [], "gated": False, "pipeline_tag": "",
        "trendingScore": 0, "siblings": [{}]})
    with pytest.raises(HubError, match="cannot be read"):
        found(hub, library=None)


def test_strange_and_missing_ids(hub):
    for name, words in (("no/such", "is not on 127"), ("a b/c?", "organisation/name"),
                        ("../../etc", "organisation/name")):
        with pytest.raises(HubError, match=words):
            hub.details(name)


def test_no_connection_is_said_within_seconds(tmp_path):
    hub = Hub("http://127.0.0.1:9", tmp_path)
    assert "no connection to 127.0.0.1:9" in hub.problem()
    with pytest.raises(OfflineError):
        hub.details("ada/small")


def test_offline_by_choice_asks_nobody(fake, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in hub.problem()
    assert fake.asked == []


def test_a_token_is_named_and_never_shown(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = Hub(fake.url, tmp_path)
    assert hub.has_token()
    with pytest.raises(HubError, match="refused the token") as error:
        hub.account()
    assert "hf_secret" not in str(error.value)
    fake.accounts["hf_secret"] = "ada"
    hub = Hub(fake.url, tmp_path)
    assert hub.account() == "ada"
    assert "hf_secret" not in repr(HubSearch(hub, HubQuery()).page(1))


# --- cards


def test_pictures_are_fetched_by_us_and_made_small(fake, hub):
    from PIL import Image

    folder = fake.root / "ada" / "small" / "images"
    folder.mkdir()
    Image.new("RGB", (3000, 1500), "red").save(folder / "b.png")
    (folder / "a.png").write_bytes(b"no picture at all")
    fake.meta["ada/small"]["cardData"]["widget"] = [
        {"text": "a cat", "output": {"url": "images/b.png"}}, {"text": "x", "output": None}, "odd"]
    details = hub.details("ada/small")
    assert example_pictures(details) == ["images/b.png", "images/a.png"]
    pictures = hub.pictures(details, example_pictures(details))
    assert list(pictures) == ["images/b.png"]
    assert len(pictures["images/b.png"]) < 100_000


# --- this machine


def fetched(hub, model_id):
    download = Downloads().start(hub, hub.details(model_id).plan)
    assert download.finished.wait(WAIT) and download.status == "done", download.error
    return download


def test_the_cache_is_listed_by_revision_and_deleted_with_what_it_frees(fake, hub):
    fetched(hub, "ada/large")
    (fake.root / "ada" / "large" / "unet" / "config.json").write_text('{"changed": true}')
    fetched(hub, "ada/large")
    fetched(hub, "ada/small")
    revisions = cached_revisions(hub.cache_dir)
    assert [(r.model_id, r.refs) for r in revisions] == [
        ("ada/large", ("main",)), ("ada/large", ()), ("ada/small", ("main",))]
    new, old, _ = revisions
    assert new.size_bytes > 500_000
    assert 0 < new.freed_bytes < 1000  # the weights belong to both
    both = freed_bytes(hub.cache_dir, [new.commit, old.commit])
    assert both > 500_000
    assert delete_revisions(hub.cache_dir, [new.commit, old.commit]) == both
    assert cached_pipelines(hub.cache_dir) == ["ada/small"]
    with pytest.raises(PipelineError, match="not in"):
        delete_revisions(hub.cache_dir, [new.commit])
    assert cached_revisions(hub.cache_dir / "nowhere") == []


def test_damage_is_found_by_checksum_and_mended(fake, hub):
    fetched(hub, "ada/small")
    (revision,) = cached_revisions(hub.cache_dir)
    assert damaged_files(revision) == []
    weights = revision.folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.resolve().write_bytes(b"v" * 1000)  # the size is right
    assert damaged_files(revision) == ["unet/diffusion_pytorch_model.safetensors"]
    forget_files(revision, damaged_files(revision))
    assert hub.details("ada/small").model.here == "partly"
    fetched(hub, "ada/small")
    assert damaged_files(cached_revisions(hub.cache_dir)[0]) == []


def test_folders_are_registered_and_offered(tmp_path):
    registry, folders = Registry("cpu"), LocalFolders(tmp_path)
    for name in ("one", "two"):
        shutil.copytree(BUNDLED["postcards"], tmp_path / "many" / name)
    one, two = (str(tmp_path / "many" / name) for name in ("one", "two"))
    assert folders.add(one, registry) == [one]
    assert folders.add(str(tmp_path / "many"), registry) == [two]
    assert offered_models(tmp_path, tmp_path / "cache") == [*BUNDLED, one, two]
    assert local_details(registry, one).model.pipeline_class == "StableDiffusionPipeline"
    folders.remove(one)
    assert LocalFolders(tmp_path).paths() == [two]
    for text in ("", "no/such/folder", str(tmp_path), "~nobody-here/x", "a\0b"):
        with pytest.raises(PipelineError):
            folders.add(text, registry)
    folders.path.write_text("[")
    with pytest.raises(PipelineError, match="cannot be read"):
        folders.paths()


def test_the_bundled_model_has_files_config_and_card(hub):
    details = local_details(Registry("cpu"), "postcards")
    assert (details.model.source, details.model.here) == ("bundled", "yes")
    assert details.index["_class_name"] == "StableDiffusionPipeline"
    assert "postcards" in hub.card_text(details).lower()
    with pytest.raises(HubError, match="outside"):
        hub.content(details, "../../errors.py")


# --- the command line


@pytest.fixture
def run(fake, tmp_path, monkeypatch, capsys):
    """Run a command line in this process; gives back exit code, output, errors."""
    monkeypatch.setenv("HF_ENDPOINT", fake.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["hub", *arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


def test_search_on_the_command_line(run):
    code, out, _ = run("search", "small", "--task", "unconditional-image-generation", "--json")
    (model,) = json.loads(out)
    assert (code, model["model_id"], model["obstacle"]) == (0, "ada/small", None)
    assert "grace/pickled" in run("search", "--author", "grace")[1]
    assert "No model fits" in run("search", "nobody")[1]
    assert [m["model_id"] for m in json.loads(run("search", "--max-gb", "0.0001", "--author", "ada",
                                                  "--json")[1])] == ["ada/small"]


def test_download_and_cache_on_the_command_line(run, tmp_path):
    assert "No model in" in run("cache")[1]
    code, out, _ = run("download", "ada/small", "--json")
    record = json.loads(out)
    assert code == 0 and (Path(record["folder"]) / "model_index.json").exists()
    listed = json.loads(run("cache", "--check", "--json")[1])["revisions"]
    assert [(r["model_id"], r["damaged"]) for r in listed] == [("ada/small", [])]
    code, _, err = run("cache", "--delete", "123456")
    assert code == 2 and "begins 0 commits" in err
    code, _, err = run("cache", "--delete", record["commit"][:8])
    assert code == 2 and "Say --yes" in err
    code, out, _ = run("cache", "--delete", record["commit"][:8], "--yes")
    assert code == 0 and "free again" in out
    assert json.loads(run("cache", "--json")[1])["revisions"] == []


@pytest.mark.parametrize("arguments, words", [
    (("download", "grace/pickled"), "pickle"),
    (("download", "no/such"), "is not on"),
    (("download", "grace/closed"), "accept its conditions"),
    (("download", "ada/small", "--variant", "fp16"), "accepted none (plain weights)"),
    (("download", "ada/small", "--revision", "elsewhere"), "no 'elsewhere'"),
    (("download", "ada/small", "--file", "x.safetensors"), "accepted a .safetensors file"),
    (("search", "--sort", "beauty"), "beauty"),
    ((), "Missing command"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(run, arguments, words):
    code, out, err = run(*arguments)
    assert code == 2 and words in err and err.count("\n") == 1 and out == ""


def test_a_variant_of_a_single_file_is_refused(fake, run):
    (fake.root / "ada" / "loose").mkdir()
    (fake.root / "ada" / "loose" / "one.safetensors").write_bytes(b"w" * 100)
    code, _, err = run("download", "ada/loose", "--variant", "fp16")
    assert code == 2 and "a checkpoint, which has no variants" in err


def test_a_broken_off_download_is_listed_and_deleted(fake, run, hub, monkeypatch):
    monkeypatch.setattr("pipelines.hub.download.TRIES", 0)
    fake.fault("/blobs/.*large", cut=1000)
    code, _, err = run("download", "ada/large")
    assert code == 2 and "what is here is kept" in err
    assert leftovers(hub.cache_dir) == {"ada/large": 1000}
    assert "unfinished: ada/large" in run("cache")[1]
    assert run("cache", "--delete-partial", "--yes")[0] == 0
    assert not list(repo_folder(hub.cache_dir, "ada/large").rglob(f"*{PARTIAL}"))


def test_a_process_of_its_own_takes_endpoint_and_cache_from_the_environment(fake, tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "hf")}
    run = [sys.executable, "-m", "pipelines", "hub"]
    done = subprocess.run([*run, "download", "ada/small", "--json"], env=environment,
                          capture_output=True, text=True, check=True)
    assert str(tmp_path / "hf" / "hub") in json.loads(done.stdout)["folder"]
    offline = subprocess.run([*run, "download", "ada/small"], capture_output=True, text=True,
                             env={**environment, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 2
    assert "HF_HUB_OFFLINE is set" in offline.stderr and offline.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a child on Windows")
def test_ctrl_c_keeps_what_is_here_and_the_same_command_resumes(fake, tmp_path):
    environment = {**os.environ, "HF_ENDPOINT": fake.url, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "pipelines", "hub", "download", "ada/large"]
    hold = fake.fault("/blobs/.*large", hold=100_000)
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while 100_000 not in leftovers(tmp_path / "hf" / "hub").values():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    hold.go.set()
    assert process.returncode == 130
    assert "the same command resumes" in err and "Traceback" not in err
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert fake.fetched("/blobs/ada/large")[-1].range == "bytes=100000-"

"""The page Hub on a local Hub: its lists, a model, downloads, the cache, the tour, and offline."""

import json
import shutil

import pytest
import streamlit as st
from apptest import APP, html
from fakehub import FakeHub
from huggingface_hub import constants
from repositories import small_repo
from streamlit.testing.v1 import AppTest

from dashboard import state
from pipelines.models.files import BUNDLED

WAIT = 60


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A Hub, and a data folder and a cache of one's own for the dashboard."""
    root = tmp_path / "root"
    folder = small_repo(root, "ada/small")
    (folder / "README.md").write_text("# The card of it\n<script>alert(1)</script>")
    small_repo(root, "grace/closed")
    shutil.copytree(BUNDLED["postcards"], root / "ada" / "cards")
    monkeypatch.setenv("CONTACT_SHEET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    st.cache_resource.clear()
    with FakeHub(root) as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        fake.meta = {"grace/closed": {"gated": "auto"},
                     "ada/small": {"pipeline_tag": "unconditional-image-generation",
                                   "cardData": {"license": "mit"}}}  # fmt: skip
        yield fake
    st.cache_resource.clear()


def page(name, values=None, **query):
    """One page of the app, drawn once; `values` by session key."""
    app = AppTest.from_file(APP, default_timeout=WAIT)
    for key, value in query.items():
        app.query_params[key] = value
    for key, value in (values or {}).items():
        app.session_state[key] = value
    return app.switch_page(f"views/{name}.py").run()


def lines(app):
    """What the lists of models on the page hold, by id."""
    data = [json.loads(element.proto.json) for element in app.get("bidi_component")
            if element.proto.component_name == "contact_sheet.model_list"]
    return {line["id"]: line for one in data for line in one["lines"]}


def fetch(app, key="hub.download"):
    app.button(key=key).click().run()
    assert not app.exception
    for download in state.downloads().all():
        assert download.finished.wait(WAIT)
        assert download.status == "done", download.error
    return app.run()


def test_the_list_begins_with_what_is_here_and_says_what_each_model_is(fake):
    app = page("hub")
    assert not app.exception
    listed = lines(app)
    assert list(listed)[0] == "postcards" and listed["postcards"]["marks"] == [["good", "bundled"]]
    assert listed["grace/closed"]["marks"] == [["warn", "gated"]]
    small = listed["ada/small"]
    assert {"DDPM", "mit", "safetensors", "opens here"} < set(small["facts"])
    assert small["figures"][0] == ["to fetch", "1.16 kB"]
    assert "no token is set" in html(app)


def test_the_token_is_named_by_its_account_and_never_shown(fake, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    fake.accounts["hf_secret"] = "ada-l"
    app = page("hub")
    assert "a token is set, account ada-l" in html(app)
    fake.accounts.clear()
    st.cache_resource.clear()
    app = page("hub")
    assert "a token is set, but" in html(app) and "refused the token" in html(app)
    assert "hf_secret" not in html(app)


def test_filters_reach_both_lists(fake):
    app = page("hub")
    app.text_input(key="hub.text").set_value("card").run()
    assert set(lines(app)) == {*(name for name in BUNDLED if "card" in name), "ada/cards"}
    app.text_input(key="hub.text").set_value("")
    app.selectbox(key="hub.task").set_value("unconditional-image-generation").run()
    assert set(lines(app)) == {"postcards-ddpm", "ada/small"}
    app.number_input(key="hub.max_gb").set_value(1e-9).run()
    assert "No model of the Hub fits" in html(app)


@pytest.mark.parametrize("status, words", [(429, "too many requests"), (500, "trouble of its own"),
                                           (403, "does not allow this")])
def test_what_goes_wrong_at_the_hub_is_said_on_the_page(fake, status, words):
    fake.fault(r"/api/models\?.*sort", status=status, times=9)
    app = page("hub")
    assert not app.exception and words in html(app)
    assert "postcards" in lines(app)
    fake.faults.clear()
    app.button(key="hub.again").click().run()
    assert "ada/small" in lines(app)


def test_a_model_is_downloaded_and_opened_in_generate(fake):
    app = page("hub", model="ada/cards")
    assert not app.exception
    assert app.button(key="hub.download").label.startswith("Download: ")
    fetch(app)
    assert "All its files are on this machine" in html(app)
    app.button(key="hub.generate").click().run()
    assert not app.exception
    assert app.title[0].value == "Generate"
    assert app.selectbox(key="generate.model_id").value == "ada/cards"
    assert "ada/cards" in app.selectbox(key="generate.model_id").options


def test_a_single_file_brings_the_configs_that_it_goes_with(fake):
    import single_file
    from tiny import build

    folder = fake.root / "ada" / "loose"
    folder.mkdir()
    single_file.save_single_file(build("sd"), folder / "loose.safetensors")
    home = fake.root / "stable-diffusion-v1-5" / "stable-diffusion-v1-5"
    build("sd").save_pretrained(home)
    app = fetch(page("hub", model="ada/loose"))
    assert "needs the config files of stable-diffusion-v1-5" in html(app)
    app = fetch(app, "hub.configs")
    assert not [a for a in fake.fetched("stable-diffusion-v1-5") if ".safetensors" in a.path]
    app.button(key="hub.generate").click().run()
    assert not app.exception
    chosen = app.selectbox(key="generate.model_id").value
    assert chosen.endswith("loose.safetensors")
    assert state.engine().registry.describe(chosen).pipeline_class == "StableDiffusionPipeline"
    assert "postcards" in lines(page("hub"))  # configs alone are no model
    assert "stable-diffusion-v1-5/stable-diffusion-v1-5" not in state.offered()
    assert chosen in state.offered()


def test_an_adapter_is_put_on_the_model_of_generate(fake):
    folder = fake.root / "ada" / "ink"
    folder.mkdir()
    (folder / "ink.safetensors").write_bytes(b"not opened here")
    fake.meta["ada/ink"] = {"tags": ["lora"]}
    assert ["plain", "adapter"] in lines(page("hub"))["ada/ink"]["marks"]
    app = fetch(page("hub", model="ada/ink"))
    app.button(key="hub.lora").click().run()
    assert not app.exception and app.title[0].value == "Generate"
    assert app.session_state["generate.loras"].endswith("ink.safetensors")


def test_the_chosen_variant_is_fetched_and_opened(fake):
    weights = "unet/diffusion_pytorch_model{}.safetensors"
    folder = fake.root / "ada" / "cards"
    shutil.copy(folder / weights.format(""), folder / weights.format(".fp16"))
    app = page("hub", model="ada/cards")
    app.selectbox(key="hub.variant.ada/cards").set_value("fp16").run()
    app = fetch(app).run()
    assert "All its files are on this machine" in html(app)
    assert fake.fetched(".fp16.safetensors") and not fake.fetched(f"/blobs/ada/cards/{weights}")
    app.button(key="hub.generate").click().run()
    assert app.session_state["generate.carried"] == {"variant": "fp16"}


def test_another_revision_by_name(fake):
    app = page("hub", model="ada/small")
    app.text_input(key="hub.revision.ada/small").set_value("nowhere").run()
    assert "ada/small has no &#x27;nowhere&#x27;" in html(app)
    app.run().button(key="hub.main").click().run()
    app.text_input(key="hub.revision.ada/small").set_value(fake.commit("ada/small")).run()
    fetch(app)
    app.button(key="hub.generate").click().run()
    assert app.session_state["generate.carried"] == {"revision": fake.commit("ada/small")}
    app = page("hub", model="ada/small")
    app.text_input(key="hub.revision.ada/small").set_value(fake.commit("ada/small")).run()
    app.button(key="hub.compare").click().run()
    assert not app.exception
    assert app.session_state["compare.values.model_id"] == (
        f"postcards, ada/small@{fake.commit('ada/small')}")


def test_a_model_joins_the_models_of_compare(fake):
    app = page("hub", model="postcards")
    app.button(key="hub.compare").click().run()
    assert app.title[0].value == "Compare"
    assert app.session_state["compare.axes"][0] == "model_id"
    assert app.session_state["compare.values.model_id"] == "postcards"
    app = fetch(page("hub", model="ada/cards"))
    app.button(key="hub.compare").click().run()
    assert not app.exception
    assert app.session_state["compare.values.model_id"] == "postcards, ada/cards"


def test_a_card_is_shown_and_its_script_is_not(fake):
    app = page("hub", model="ada/small")
    assert "The card of it" in html(app)
    assert html(app).count("<script") == html(page("hub")).count("<script")  # the browser's id
    assert "DDPMScheduler" in html(app)  # the config


@pytest.mark.parametrize("model_id", ["ada/small", "postcards"])
def test_any_config_of_a_model_can_be_read(fake, model_id):
    app = page("hub", model=model_id)
    config = app.selectbox(key=f"hub.config.{model_id}")
    assert config.value == "model_index.json" and "_class_name" in app.code[-1].value
    config.set_value("unet/config.json").run()
    assert not app.exception and "cs-notice cs-error" not in html(app)
    assert app.code[-1].value.strip().startswith("{") and "_class_name" not in app.code[-1].value \
        or model_id == "postcards"


def test_an_older_revision_can_be_used_while_a_newer_one_is_offered(fake):
    fetch(page("hub", model="ada/small"))
    (fake.root / "ada" / "small" / "unet" / "config.json").write_text('{"changed": true}')
    st.cache_resource.clear()
    app = page("hub", model="ada/small")
    assert app.button(key="hub.download").label == "Fetch the rest: 17 bytes"
    assert "What is on this machine already can be used" in html(app)
    app.button(key="hub.generate").click().run()
    assert app.title[0].value == "Generate" and not app.exception


def test_a_gated_model_says_what_to_accept_and_where(fake):
    app = page("hub", model="grace/closed")
    assert not app.exception
    assert f"log in at {fake.url}/grace/closed" in html(app)
    assert "hf auth login" in html(app)
    assert not [button for button in app.button if button.key == "hub.download"]


def test_a_full_disk_is_said_before_the_download(fake, monkeypatch):
    monkeypatch.setattr("dashboard.components.fetch_model.free_bytes", lambda folder: 1000)
    app = page("hub", model="ada/small")
    assert "do not fit" in html(app)
    assert not [button for button in app.button if button.key == "hub.download"]


def test_a_failed_download_says_why_and_tries_again(fake, monkeypatch):
    monkeypatch.setattr("pipelines.hub.download.TRIES", 0)
    fake.fault("/blobs/.*small", status=500, times=99)
    app = page("hub", model="ada/small")
    app.button(key="hub.download").click().run()
    (download,) = state.downloads().all()
    assert download.finished.wait(WAIT)
    app.run()
    assert "answered 500" in html(app)
    fake.faults.clear()
    app.button(key=f"resume.page.{download.id}").click().run()
    assert download.finished.wait(WAIT)
    app.run()
    assert "All its files are on this machine" in html(app)


def test_a_download_is_paused_and_resumed_from_any_page(fake):
    hold = fake.fault("/blobs/.*small", hold=100)
    app = page("hub", model="ada/small")
    app.button(key="hub.download").click().run()
    (download,) = state.downloads().all()
    app.switch_page("views/runs.py").run()
    app.button(key=f"pause.sidebar.{download.id}").click().run()
    assert download.status == "paused"
    hold.go.set()
    app.button(key=f"resume.sidebar.{download.id}").click().run()
    assert download.finished.wait(WAIT) and download.status == "done"
    app.run()
    assert not [button for button in app.button if "sidebar" in (button.key or "")]


def test_a_revision_is_checked_and_deleted_after_a_question(fake):
    fetch(page("hub", model="ada/small"))
    app = page("hub", {"hub.view": "This machine"})
    assert "ada" in html(app) and "last used today" in html(app)
    key = fake.commit("ada/small")[:12]
    app.button(key=f"hub.check.{key}").click().run()
    assert "files of ada/small are whole" in html(app)
    app.button(key=f"hub.delete.{key}").click().run()
    assert "are freed" in html(app)
    assert app.button(key="hub.delete.yes").label.startswith("Delete and free ")
    app.button(key="hub.delete.yes").click().run()
    assert not app.exception
    assert "Nothing is downloaded yet" in html(app)


def test_damage_is_found_and_mended_from_the_page(fake):
    fetch(page("hub", model="ada/small"))
    app = page("hub", {"hub.view": "This machine"})
    key = fake.commit("ada/small")[:12]
    snapshot = next(state.hub().cache_dir.glob("models--ada--small/snapshots/*"))
    (snapshot / "unet" / "diffusion_pytorch_model.safetensors").resolve().write_bytes(b"x" * 1000)
    app.button(key=f"hub.check.{key}").click().run()
    assert "Damaged: unet/diffusion_pytorch_model.safetensors" in html(app)
    app.button(key=f"hub.mend.{key}").click().run()
    assert app.button(key="hub.download").label.startswith("Fetch the rest")


def test_a_folder_is_registered_and_offered_everywhere(fake, tmp_path):
    folder = shutil.copytree(BUNDLED["postcards"], tmp_path / "mine")
    app = page("hub", {"hub.view": "This machine"})
    app.text_input(key="hub.path").set_value(str(folder))
    register = next(button for button in app.button if button.label == "Register")
    register.click().run()
    assert not app.exception and str(folder) in html(app)
    app.text_input(key="hub.path").set_value("/no/such/folder")
    next(button for button in app.button if button.label == "Register").click().run()
    assert "accepted the path of a folder" in html(app)
    assert str(folder) in page("generate").selectbox(key="generate.model_id").options
    assert str(folder) in lines(page("hub"))
    app = page("hub", model=str(folder))
    assert app.button(key="hub.generate").label == "Open in Generate"


@pytest.mark.parametrize("offline", [False, True])
def test_each_step_of_the_tour_has_a_live_result(fake, monkeypatch, offline):
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    app = page("hub", {"hub.view": "Tour"})
    for title in ("Models", "Pipelines", "Cards", "Licences", "Tasks"):
        assert not app.exception
        assert f"<h2 class='cs-model'>{title}</h2>" in html(app)
        assert ("Live: postcards" if offline else "Live: ada/") in html(app)
        if title != "Tasks":
            app.button(key="hub.tour.next").click().run()
    app.button(key="hub.tour.unconditional-image-generation").click().run()
    assert app.selectbox(key="hub.task").value == "unconditional-image-generation"
    assert offline or set(lines(app)) == {"postcards-ddpm", "ada/small"}


def test_offline_the_page_says_so_and_works_on_what_is_local(fake, monkeypatch):
    fetch(page("hub", model="ada/small"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    st.cache_resource.clear()
    app = page("hub")
    assert "Offline: HF_HUB_OFFLINE is set" in html(app)
    assert set(lines(app)) == {*BUNDLED, "ada/small"}
    app = page("hub", model="ada/small")
    assert "this is the copy on this machine" in html(app)
    assert "The card of it" in html(app)
    assert app.button(key="hub.generate")
    app = page("hub", model="grace/closed")
    assert not app.exception and "not on this machine" in html(app)


def test_an_id_that_nobody_knows_is_explained(fake):
    for name in ("no/such", "nothing", "a b?c", "../../etc/passwd"):
        app = page("hub", model=name)
        assert not app.exception
        assert "cs-notice cs-error" in html(app), name

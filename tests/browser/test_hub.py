"""What a person does on the page Hub, in a real Chromium against a local Hub."""

import re
import shutil

import pytest
from fakehub import FakeHub
from PIL import Image
from playwright.sync_api import expect
from repositories import HOSTILE_CARD
from tiny_sam import tiny_sam2

from browser.actions import dashboard, hero, open_page

pytestmark = pytest.mark.browser
SAM = "facebook/sam2.1-hiera-tiny"


@pytest.fixture(scope="module")
def fake(tmp_path_factory, tiny_folder):
    """A Hub with a real pipeline whose card means harm."""
    root = tmp_path_factory.mktemp("hub")
    folder = root / "ada" / "tiny-sd"
    shutil.copytree(tiny_folder("sd"), folder)
    (folder / "README.md").write_text(HOSTILE_CARD)
    (folder / "images").mkdir()
    Image.new("RGB", (300, 200), "red").save(folder / "images" / "own.png")
    shutil.copytree(tiny_folder("ddpm"), root / "grace" / "noise")
    tiny_sam2().save_pretrained(root / SAM)
    with FakeHub(root) as fake:
        fake.meta[SAM] = {"library_name": "transformers", "pipeline_tag": "mask-generation",
                          "config": {"model_type": "sam2"}}
        fake.meta["ada/tiny-sd"] = {"downloads": 5, "cardData": {"license": "mit"}}
        yield fake


@pytest.fixture(scope="module")
def address(tmp_path_factory, fake):
    """A dashboard that takes that Hub for the Hub, with a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")
    environment = {"HF_ENDPOINT": fake.url, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
    with dashboard(tmp_path_factory.mktemp("dashboard"), environment) as running:
        yield running.url


def test_search_card_download_and_the_first_picture(page, address, fake):
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url)
            if not request.url.startswith((address, "data:", "blob:")) else None)
    dialogs: list[str] = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    open_page(page, f"{address}/hub", "Hub")
    expect(page.get_by_role("button", name=re.compile("^grace.noise"))).to_be_visible()
    page.get_by_label("Search").fill("tiny")
    page.get_by_label("Search").press("Enter")
    expect(page.get_by_role("button", name=re.compile("^grace.noise"))).to_have_count(0)
    page.get_by_role("button", name=re.compile("^ada.tiny-sd")).click()

    card = page.locator(".cs-card")
    expect(card.get_by_role("heading", name="Card")).to_be_visible()
    expect(card.locator("img")).to_have_count(1)
    assert card.locator("img").evaluate("node => node.naturalWidth") == 300
    for tag in ("script", "form", "input", "iframe", "style", "svg", "video"):
        expect(card.locator(tag)).to_have_count(0)
    links = card.locator("a").evaluate_all("nodes => nodes.map(n => n.getAttribute('href'))")
    assert [link for link in links if link] == [f"{fake.url}/ada/tiny-sd/blob/main/docs/use.md",
                                                "https://ok.example/page"]
    kept = card.get_by_role("link", name="elsewhere")
    assert "noopener" in kept.get_attribute("rel") and kept.get_attribute("target") == "_blank"

    hold = fake.fault(r"/blobs/.*unet", hold=1_000_000)
    page.get_by_role("button", name=re.compile("^Download")).click()
    row = page.locator(".cs-file", has_text="unet/diffusion_pytorch_model.safetensors")
    expect(row).to_contain_text("1 MB of")
    expect(page.get_by_text(re.compile(r"\d+% · .* of 4\.\d+ MB"))).to_be_visible()
    panel = page.get_by_test_id("stSidebar")
    expect(panel.get_by_text("Downloads", exact=True)).to_be_visible()
    panel.get_by_role("button", name="Pause").click()
    expect(page.get_by_text(re.compile("paused")).first).to_be_visible()
    page.reload()
    expect(page.get_by_text(re.compile("paused")).first).to_be_visible()
    hold.go.set()
    panel.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("All its files are on this machine.")).to_be_visible()

    page.get_by_role("button", name="Open in Generate").click()
    expect(page.get_by_role("heading", name="Generate", exact=True)).to_be_visible()
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a cat")
    steps = page.get_by_label("num_inference_steps")
    steps.fill("2")
    steps.press("Enter")
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    page.get_by_role("button", name="Generate").click()
    expect(hero(page)).to_have_attribute("alt", re.compile("a cat.*2 steps"))
    assert page.title() != "owned" and dialogs == [] and foreign == []


def test_the_list_works_by_keyboard_and_on_a_phone(page, address):
    page.set_viewport_size({"width": 390, "height": 844})
    open_page(page, f"{address}/hub", "Hub")
    line = page.get_by_role("button", name=re.compile("^grace.noise"))
    expect(line).to_be_visible()
    line.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name=re.compile("^Download"))).to_be_visible()
    download = page.get_by_role("button", name=re.compile("^Download")).bounding_box()
    tabs = page.get_by_role("tab", name="Card").bounding_box()
    assert download["y"] < tabs["y"]
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= 390
    page.get_by_role("button", name="All models").click()
    expect(line).to_be_visible()


def test_a_segmenter_is_fetched_and_read_clicks_at_once(page, address, fake):
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Car on a road, 64 px").click()
    page.get_by_test_id("stMain").get_by_role("radio", name="Click", exact=True).click()
    reader = page.get_by_role("combobox", name="Clicks are read by")
    expect(reader).to_have_value("GrabCut (colours and edges; no model)")
    page.get_by_role("button", name="Get SAM").click()
    hold = fake.fault(rf"/blobs/{SAM}/model.safetensors", hold=10_000)
    page.get_by_role("button", name=re.compile("^Download: 2 files")).click()
    expect(page.locator(".cs-file", has_text="model.safetensors")).to_contain_text("10 kB of")
    page.get_by_role("button", name="Cancel").last.click()
    expect(page.get_by_text("Cancelled. Files that were whole are kept")).to_be_visible()
    hold.go.set()
    page.get_by_role("button", name=re.compile("^Fetch the rest")).click()
    expect(reader).to_have_value(f"SAM 2 ({SAM})")
    page.keyboard.press("Escape")
    box = page.locator("canvas.upper-canvas").bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"])
    expect(page.get_by_role("button", name="Mask it", exact=True)).to_be_enabled()

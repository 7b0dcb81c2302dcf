"""Settings out of files that are dropped on a page, out of a link, and files taken home."""

import re

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from browser.actions import hero, open_page, settled
from pipelines import Comparison, RunRequest
from pipelines.provenance.link import write_link
from pipelines.sheet.recipe import read_record

PARAMETERS = ("a blue boat at sunset\nNegative prompt: people\nSteps: 3, Sampler: Euler a, "
              "CFG scale: 4.5, Seed: 99, Size: 64x64, Model: nowhere, Version: v1.6.0")


def drop(page, path):
    page.locator('[class*="-restore"] input[type=file]').set_input_files(path)


def test_a_file_of_a1111_fills_generate_and_what_is_made_of_it_fills_compare(
    page, address, tmp_path
):
    info = PngInfo()
    info.add_text("parameters", PARAMETERS)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    open_page(page, address, "Generate")
    drop(page, tmp_path / "a.png")
    expect(page.get_by_text("Settings of a.png, written by A1111")).to_be_visible()
    expect(page.get_by_text("nowhere is not on this machine; postcards stays")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a blue boat at sunset")
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("99")
    page.get_by_role("button", name="Generate", exact=False).last.click()
    expect(hero(page)).to_have_attribute("alt", re.compile("a blue boat at sunset.*seed 99"))
    expect(page.get_by_text("Nothing is running.")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Download").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="WebP, lossless").click()
    download.value.save_as(tmp_path / "b.webp")
    _, comparison = read_record(tmp_path / "b.webp")
    assert (comparison.base.scheduler, comparison.base.seed) == ("euler_a", 99)

    open_page(page, f"{address}/compare", "Compare")
    drop(page, tmp_path / "b.webp")
    expect(page.get_by_text("Settings of b.webp, written by Contact Sheet")).to_be_visible()
    expect(page.get_by_role("textbox", name="Seed")).to_have_value("99")
    open_page(page, f"{address}/inpaint", "In-paint")
    drop(page, tmp_path / "b.webp")
    expect(page.get_by_text("Settings of b.webp, written by Contact Sheet")).to_be_visible()
    (tmp_path / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    drop(page, tmp_path / "c.png")
    expect(page.get_by_text("says nothing of how it was made")).to_be_visible()


def test_a_link_fills_compare(page, address):
    base = RunRequest(prompt="a red bus & 夜", seed=5)
    link = write_link(Comparison.parse(base, ["guidance_scale=1,3", "scheduler=ddim,euler"]))
    open_page(page, f"{address}/compare?recipe={link}", "Compare")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a red bus & 夜")
    expect(page.get_by_text("4 cells")).to_be_visible()
    settled(page)
    assert "recipe=" not in page.url

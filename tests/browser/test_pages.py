"""What a person does, in a real Chromium: generate, compare, reload, look into the log."""

import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.actions import hero, open_page
from pipelines import RunRequest, measuring
from pipelines.comparison import Comparison

pytestmark = pytest.mark.browser

PAGES = (("", "Generate"), ("inpaint", "In-paint"), ("compare", "Compare"),
         ("study", "Study"), ("votes", "Votes"), ("runs", "Runs"), ("hub", "Hub"),
         ("learn", "Learn"))


def test_generate_by_ctrl_enter_shows_a_sharp_picture(page, address):
    open_page(page, address, "Generate")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("")
    prompt.press_sequentially("a blue boat at sea")
    prompt.press("Control+Enter")
    expect(hero(page)).to_have_attribute("alt", re.compile("a blue boat at sea.*seed 0"))
    drawn, own, rendering = hero(page).evaluate(
        "node => [node.clientWidth, node.naturalWidth, getComputedStyle(node).imageRendering]"
    )
    assert own == 64 and drawn >= 5 * own and drawn % own == 0
    assert rendering == "pixelated"
    expect(page.get_by_text("Initial noise, SHA-256")).to_be_visible()


def test_half_typed_text_survives_a_finished_job_and_another_page(page, address):
    open_page(page, address, "Generate")
    page.get_by_label("num_inference_steps").fill("60")
    page.get_by_label("num_inference_steps").press("Enter")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("button", name="Cancel").first).to_be_visible()
    negative = page.get_by_label("Negative prompt")
    negative.press_sequentially("a green fie")
    expect(page.get_by_role("button", name="Compare this")).to_be_visible()
    expect(negative).to_have_value("a green fie")
    page.get_by_role("link", name="Runs").click(delay=60)  # a person's click lasts a while
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    page.get_by_role("link", name="Generate").click(delay=60)
    expect(negative).to_have_value("a green fie")


def start_small_comparison(
    page, address, steps: int, apart: bool = False, prompt: str = "a yellow balloon in the desert"
) -> None:
    """Two schedulers by two guidance scales; `apart`: one cell after the other."""
    open_page(page, f"{address}/compare", "Compare")
    if apart:
        page.get_by_text("Share UNet calls", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for unwanted in ("DPM++ 2M", "UniPC", "Heun", "Euler a"):
        page.get_by_role("button", name=f"Remove {unwanted}", exact=True).click()
    page.get_by_role("textbox", name="Columns: guidance_scale").fill("1, 5")
    page.get_by_label("num_inference_steps").fill(str(steps))
    page.get_by_label("num_inference_steps").press("Enter")
    expect(page.get_by_text("4 cells")).to_be_visible()
    page.get_by_role("button", name="Start comparison").click()


def test_a_comparison_survives_a_reload_and_is_made_once(page, address, chromium):
    start_small_comparison(page, address, 100, apart=True, prompt="a red balloon in the desert")
    cells = page.locator(".cell img")
    expect(cells.first).to_be_visible()
    expect(page).to_have_url(re.compile(r"comparison=\w+"))
    assert cells.count() < 4, "the reload must come in the middle"
    page.reload()
    expect(cells).to_have_count(4)
    expect(page.get_by_text("Equal noise: proven")).to_be_visible()

    second = chromium.new_context().new_page()
    second.goto(page.url)
    expect(second.locator(".cell img")).to_have_count(4)
    second.context.close()

    open_page(page, f"{address}/runs", "Runs")
    page.get_by_label("Prompt contains").fill("red balloon")
    page.get_by_label("Prompt contains").press("Enter")
    expect(page.locator("tbody tr")).to_have_count(4)


def test_cancel_in_the_middle_keeps_what_is_done(page, address):
    start_small_comparison(page, address, 100, apart=True, prompt="a green balloon at sea")
    cells = page.locator(".cell img")
    expect(cells.first).to_be_visible()
    page.get_by_role("button", name="Cancel").last.click()
    expect(page.get_by_text(re.compile(r"Cancelled; [1-3] of 4 cells are kept"))).to_be_visible()
    kept = cells.count()
    assert 1 <= kept <= 3
    expect(page.locator(".cell[data-status=cancelled]")).to_have_count(4 - kept)
    page.reload()
    expect(cells).to_have_count(kept)


def test_shared_cells_say_so(page, address):
    start_small_comparison(page, address, 5)
    expect(page.locator(".cell img")).to_have_count(4)
    expect(page.locator(".caption").first).to_contain_text("shared")


def test_a_click_on_a_heading_sorts_the_runs(page, address, server_engine):
    base = RunRequest(prompt="a blue house in the snow", num_inference_steps=1)
    for scale in (3, 1, 12, 5):
        server_engine.run(base.changed(guidance_scale=scale))
    open_page(page, f"{address}/runs", "Runs")
    page.get_by_label("Prompt contains").fill("blue house")
    page.get_by_label("Prompt contains").press("Enter")
    cells = page.locator("tbody tr td:nth-child(6)")
    expect(cells).to_have_text(["5", "12", "1", "3"])  # the newest first
    page.get_by_role("button", name=re.compile("^Guidance")).click()
    expect(cells).to_have_text(["1", "3", "5", "12"])
    page.reload()  # the address keeps filter and order
    expect(cells).to_have_text(["1", "3", "5", "12"])
    for number in (0, 1):
        page.get_by_label(re.compile("^Select run")).nth(number).check()
        expect(page.get_by_text(f"{number + 1} selected")).to_be_visible()
    page.get_by_role("button", name="Differences").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("cell", name="guidance_scale")).to_be_visible()


def test_headings_stay_and_a_cell_opens_by_keyboard(page, address):
    page.set_viewport_size({"width": 900, "height": 500})
    start_small_comparison(page, address, 2)
    expect(page.locator(".cell img")).to_have_count(4)
    for _ in range(4):
        page.get_by_role("button", name="Larger pictures").click()
    box = page.locator(".table")
    box.evaluate("node => node.scrollTo(node.scrollWidth, node.scrollHeight)")
    frame = box.bounding_box()
    column = page.get_by_role("columnheader", name="5", exact=True).bounding_box()
    row = page.get_by_role("rowheader", name="Euler", exact=True).bounding_box()
    assert box.evaluate("node => node.scrollTop > 50 && node.scrollLeft > 50")
    assert abs(column["y"] - frame["y"]) < 3 and abs(row["x"] - frame["x"]) < 3

    page.locator(".cell").nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_text("yellow balloon").first).to_be_visible()
    expect(drawer.get_by_text("Euler · 2 steps · guidance 5 · seed 0")).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)


def test_what_people_take_home_downloads(page, address, tmp_path):
    start_small_comparison(page, address, 1)
    expect(page.locator(".cell img")).to_have_count(4)
    for button, start in (("Labelled sheet (PNG)", b"\x89PNG"), ("Cells (CSV)", b"scheduler,"),
                          ("Page with this viewer (HTML)", b"<!doctype html>"),
                          ("Cells (JSON)", b"["), ("Recipe (JSON)", b"{")):
        page.get_by_role("button", name="Download").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / "file")
        assert (tmp_path / "file").read_bytes().startswith(start), button
        page.keyboard.press("Escape")


def test_the_steps_and_the_pair_on_the_page(page, address):
    """The viewer of test_viewer.py as a component: strips come when the slider is touched, and
    what was chosen survives the polls and a reload."""
    start_small_comparison(page, address, 3)
    expect(page.locator(".cell img")).to_have_count(4)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    page.get_by_role("button", name="Swap rows and columns").click()
    slider = page.get_by_label("Denoising step", exact=True)
    expect(slider).to_have_attribute("max", "3")
    slider.press("Home")
    expect(page.locator(".at")).to_have_text(["1/3"] * 4)
    expect(page.locator(".frame:visible")).to_have_count(4)
    page.locator(".cell").first.focus()
    page.keyboard.press(" ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    pair = page.get_by_role("dialog")
    expect(pair.locator(".differencetext")).to_contain_text("of 255")
    expect(pair.get_by_role("row", name=re.compile("scheduler ddim euler"))).to_be_visible()
    page.keyboard.press("Escape")
    expect(pair).to_have_count(0)
    page.reload()
    expect(page.get_by_role("rowheader")).to_have_text(["1", "5"])


def test_a_point_of_a_chart_opens_its_cell_and_the_chart_is_saved(
    page, address, server_engine, tmp_path
):
    base = RunRequest(prompt="a red car", num_inference_steps=1)
    comparison = Comparison.parse(base, ["num_inference_steps=1..3", "scheduler=ddim,euler"])
    reference = "num_inference_steps=3,scheduler=ddim"
    runs = server_engine.compare(
        comparison, comparison_id="chart", shared=True, reference=reference)
    measuring.measure(server_engine, comparison, runs, reference)
    open_page(page, f"{address}/compare?comparison=chart", "Compare")
    dot = page.locator("svg [aria-label*=\"name: 2 steps Euler\"]")
    dot.hover()
    with page.expect_download() as saved:
        page.get_by_role("button", name="Download as PNG").click()
    saved.value.save_as(tmp_path / "chart.png")
    assert np.asarray(Image.open(tmp_path / "chart.png").convert("L")).std() > 5
    dot.click()
    expect(page.get_by_role("dialog")).to_contain_text("Euler · 2 steps")


@pytest.mark.parametrize("path, title", PAGES)
def test_a_phone_scrolls_one_way(chromium, address, path, title):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
    page = context.new_page()
    open_page(page, f"{address}/{path}", title)
    expect(page.get_by_test_id("stMain")).to_be_visible()
    wide = page.evaluate(
        "[document.documentElement, document.querySelector('[data-testid=stMain]')]"
        ".map(node => node.scrollWidth - node.clientWidth)"
    )
    context.close()
    assert wide == [0, 0]


def test_nothing_is_fetched_from_elsewhere(page, address):
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url)
            if not request.url.startswith((address, "data:", "blob:")) else None)
    for path, title in PAGES:
        open_page(page, f"{address}/{path}", title)
    assert foreign == []

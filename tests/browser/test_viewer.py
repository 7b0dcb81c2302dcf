"""The sheet's viewer as a page on disk, in a real Chromium that has no network."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from pipelines import Comparison, Engine, RunRequest, measuring
from pipelines.sheet.cells import Results
from pipelines.sheet.exports import EXPORTS
from pipelines.sheet.recipe import read_recipe, recipe

pytestmark = pytest.mark.browser

BASE = RunRequest(prompt="a red car on a road at night", num_inference_steps=3)
TURN = "matrix\\(([\\d.]+), 0, 0, [\\d.]+, ([-\\d.]+), ([-\\d.]+)\\)"


@pytest.fixture(scope="module")
def viewer_engine(tmp_path_factory):
    return Engine(tmp_path_factory.mktemp("viewer"), device="cpu")


def write(engine, comparison, runs, path):
    path.write_bytes(EXPORTS["html"].write(Results.gather(engine, comparison, runs)))
    return path


@pytest.fixture(scope="module")
def cube(viewer_engine, tmp_path_factory):
    """Two schedulers (one with twice the evaluations), two guidance scales, two seeds."""
    comparison = Comparison.parse(BASE, ["scheduler=ddim,heun", "guidance_scale=1,7", "seed=0,1"])
    runs = viewer_engine.compare(comparison, shared=True)
    path = tmp_path_factory.mktemp("cube") / "cube.html"
    return comparison, runs, write(viewer_engine, comparison, runs, path)


@pytest.fixture
def open_page(chromium):
    """Opens a file; no network, and nothing may be asked of it, nor may anything go wrong."""
    contexts, wrong = [], []

    def opened(path, width=1440, height=900, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_offline(True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text)
                if message.type in ("error", "warning") else None)
        page.on("request", lambda request: wrong.append(request.url)
                if not request.url.startswith(("file:", "data:", "blob:")) else None)
        page.goto(path.as_uri())
        expect(page.locator(".cell").first).to_be_visible()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def turns(page):
    """What the panes in view are moved by, each once."""
    return set(page.locator(".table .pane").evaluate_all(
        "nodes => nodes.map(node => getComputedStyle(node).transform)"))


def labels(page):
    return page.locator(".table .cell").evaluate_all(
        "nodes => nodes.map(node => node.getAttribute('aria-label').split(':')[0])")


def headings(page, role):
    return [text.strip() for text in page.get_by_role(role).all_inner_texts()]


def pixels(engine, run):
    return np.asarray(engine.pictures.get(run.image_sha256)).astype(int)


def test_the_page_shows_every_picture_and_carries_its_recipe(cube, open_page, tmp_path):
    comparison, runs, path = cube
    page = open_page(path)
    assert page.title() == BASE.prompt
    images = page.locator(".cell img")
    expect(images).to_have_count(4)
    for image in images.all():
        expect(image).to_have_js_property("naturalWidth", 64)
    assert read_recipe(path) == comparison
    for button, check in (("Recipe (JSON)", lambda text: json.loads(text).items()
                           >= recipe(comparison).items()),
                          ("Cells (JSON)", lambda text: [cell["nfe"] for cell in json.loads(text)]
                           == [run.nfe for run in runs]),
                          ("Cells (CSV)", lambda text: len(text.splitlines()) == 9)):
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        download.value.save_as(tmp_path / "file")
        assert check((tmp_path / "file").read_text("utf-8")), button
    assert str(path.parent.parent) not in path.read_text("utf-8")


def test_zoom_and_place_are_the_same_in_all_cells(cube, open_page):
    page = open_page(cube[2])
    cell = page.locator(".cell").nth(1)
    cell.focus()
    assert turns(page) == {"none"}
    page.keyboard.press("+")
    page.keyboard.press("+")
    expect(page.locator(".pane").first).to_have_css("transform", re.compile("matrix\\(4, 0"))
    (middle,) = turns(page)
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator(".pane").first).not_to_have_css("transform", middle)
    (right,) = turns(page)
    assert float(re.match(TURN, right)[2]) < float(re.match(TURN, middle)[2])

    box = cell.bounding_box()
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(page.locator(".pane").first).not_to_have_css("transform", right)
    (dragged,) = turns(page)
    for axis, distance in ((2, 50), (3, 20)):
        moved = float(re.match(TURN, dragged)[axis]) - float(re.match(TURN, right)[axis])
        assert abs(moved - distance) < 1
    expect(page.get_by_role("dialog")).to_have_count(0)  # a drag opens nothing

    page.keyboard.press("0")
    expect(page.locator(".pane").first).to_have_css("transform", "none")
    assert page.locator(".picture").first.evaluate(
        "node => getComputedStyle(node).imageRendering") == "pixelated"
    page.keyboard.down("Control")
    page.mouse.move(box["x"] + 3, box["y"] + 3)  # what is under the pointer stays there
    page.mouse.wheel(0, -120)
    page.keyboard.up("Control")
    expect(page.locator(".pane").first).not_to_have_css("transform", "none")
    (corner,) = turns(page)
    assert float(re.match(TURN, corner)[1]) > 1.5
    assert abs(float(re.match(TURN, corner)[2])) < 5


def test_the_step_slider_moves_all_cells_through_their_denoising(cube, open_page):
    page = open_page(cube[2])
    slider = page.get_by_label("Denoising step", exact=True)
    expect(slider).to_have_attribute("max", "5")  # Heun's evaluations; DDIM has 3
    cells = page.locator(".cell").all()
    final = [cell.screenshot() for cell in cells]
    slider.focus()
    page.keyboard.press("Home")
    for cell in cells:
        expect(cell.locator(".frame")).to_be_visible()
    expect(page.locator(".at")).to_have_text(["1/3", "1/3", "1/5", "1/5"])
    first = [cell.screenshot() for cell in cells]
    assert all(one != other for one, other in zip(first, final, strict=True))
    page.keyboard.press("]")
    page.keyboard.press("]")
    expect(page.locator(".at")).to_have_text(["2/3", "2/3", "3/5", "3/5"])
    expect(page.locator(".steptext").first).to_have_text(re.compile("60 %"))
    page.keyboard.press("End")
    expect(page.locator(".frame:visible")).to_have_count(0)

    page.locator(".cell").first.focus()
    page.keyboard.press("[")
    expect(page.locator(".at").last).to_have_text("4/5")
    page.keyboard.press("p")  # plays to the end
    expect(page.locator(".frame:visible")).to_have_count(0)


def test_axes_swap_hide_and_move_without_a_new_picture(cube, open_page):
    page = open_page(cube[2])
    assert headings(page, "columnheader")[1:] == ["1", "7"]
    assert headings(page, "rowheader") == ["DDIM", "Heun"]
    page.locator(".cell img").evaluate_all("nodes => nodes.forEach((n, i) => { n.mark = i; })")
    page.get_by_role("button", name="Swap rows and columns").click()
    assert headings(page, "columnheader")[1:] == ["DDIM", "Heun"]
    assert headings(page, "rowheader") == ["1", "7"]
    assert page.locator(".cell img").evaluate_all("nodes => nodes.map(n => n.mark)") == [0, 2, 1, 3]
    assert labels(page)[1] == "scheduler Heun, guidance_scale 1, seed 0"

    page.get_by_role("button", name="seed: next").click()
    assert {label[-6:] for label in labels(page)} == {"seed 1"}
    page.get_by_label("Columns", exact=True).select_option("seed")
    assert headings(page, "columnheader")[1:] == ["0", "1"]
    page.get_by_label("In a cell").select_option("scheduler")
    assert headings(page, "columnheader")[1:] == ["0", "1", "DDIM", "Heun", "DDIM", "Heun"]
    expect(page.locator(".cell img")).to_have_count(8)

    page.locator(".cell").first.focus()
    page.keyboard.press("h")
    assert headings(page, "columnheader")[1:] == ["1", "DDIM", "Heun"]
    assert page.locator(".cell:focus").count() == 1
    page.get_by_role("button", name="Values").click()
    page.get_by_label("7", exact=True).uncheck()
    assert headings(page, "rowheader") == ["1"]
    page.get_by_role("button", name="2 hidden").click()
    expect(page.locator(".cell img")).to_have_count(8)
    page.get_by_role("button", name="Values").click()
    page.get_by_role("button", name="Heun: earlier").click()
    assert headings(page, "columnheader")[3:] == ["Heun", "DDIM"] * 2
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Labels").click()
    page.get_by_role("checkbox", name="function evaluations").uncheck()
    expect(page.locator(".texts").first).not_to_contain_text("NFE")
    page.reload()
    assert headings(page, "columnheader")[3:] == ["Heun", "DDIM"] * 2  # kept while it is open


def test_two_cells_beside_each_other(cube, open_page, viewer_engine):
    comparison, runs, path = cube
    page = open_page(path)
    page.locator(".cell").first.focus()
    page.keyboard.press(" ")
    expect(page.locator(".pick").first).to_have_text("A")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    pair = page.get_by_role("dialog")
    expect(pair.get_by_role("radio", name="Difference")).to_be_checked()
    by_axes = {tuple(run.axes.items()): pixels(viewer_engine, run) for run in runs}

    def apart(**other):
        one = {"seed": 0, "scheduler": "ddim", "guidance_scale": 1.0}
        two = by_axes[tuple((one | other).items())]
        return np.abs(by_axes[tuple(one.items())] - two)

    text = pair.locator(".differencetext")
    away = apart(guidance_scale=7.0)
    expect(text).to_have_text(f"mean {away.mean():.2f}, largest {away.max()} of 255; "
                              f"{(away.max(2) > 0).mean() * 100:.1f} % of the pixels differ")
    page.keyboard.press(">")
    expect(pair.get_by_text("× 8")).to_be_visible()
    shown = pair.locator("canvas").evaluate(
        "n => [...n.getContext('2d').getImageData(0, 0, n.width, n.height).data]")
    shown = np.array(shown).reshape(64, 64, 4)[:, :, :3]
    assert (shown == np.minimum(255, 8 * away)).all()

    rows = pair.locator(".facts tr").all_inner_texts()
    assert "guidance_scale\t1\t7" in rows
    assert not any(row.startswith(("scheduler", "seed", "prompt")) for row in rows)
    page.keyboard.press("ArrowDown")  # B walks on through the sheet
    away = apart(scheduler="heun", guidance_scale=7.0)
    expect(text).to_contain_text(f"mean {away.mean():.2f}, largest {away.max()} ")
    assert "scheduler\tddim\theun" in pair.locator(".facts tr").all_inner_texts()

    page.keyboard.press("e")
    expect(pair.get_by_role("radio", name="FLIP")).to_be_checked()
    expect(pair.get_by_text("0 equal")).to_be_visible()
    expect(text).to_contain_text("as seen at 67 pixels per degree")
    one, two = (Image.fromarray(by_axes[tuple(axes.items())].astype(np.uint8)) for axes in (
        {"seed": 0, "scheduler": "ddim", "guidance_scale": 1.0},
        {"seed": 0, "scheduler": "heun", "guidance_scale": 7.0}))
    assert float(text.inner_text().split()[1].strip(",")) == pytest.approx(
        measuring.flip(two, one), abs=0.001)
    brightest = pair.locator("canvas").evaluate(
        "n => Math.max(...n.getContext('2d').getImageData(0, 0, n.width, n.height).data"
        ".filter((_, i) => i % 4 < 3))")
    assert brightest > 100, "the map is drawn"

    page.keyboard.press("w")
    handle = pair.get_by_role("slider", name="Share of A in view")
    expect(handle).to_have_attribute("aria-valuenow", "50")
    handle.focus()
    page.keyboard.press("ArrowLeft")
    expect(handle).to_have_attribute("aria-valuenow", "48")
    view = pair.locator(".view").bounding_box()
    page.mouse.click(view["x"] + view["width"] / 4, view["y"] + 50)
    expect(handle).to_have_attribute("aria-valuenow", "25")
    page.keyboard.press("f")
    expect(pair.locator(".view .badge")).to_have_text("B")
    expect(pair.locator(".view .badge")).to_have_text("A")
    page.keyboard.press("s")
    expect(pair.locator(".view")).to_have_count(2)
    page.keyboard.press("+")
    page.keyboard.press("[")
    for face in pair.locator(".view").all():
        expect(face.locator(".frame")).to_be_visible()
        expect(face.locator(".pane")).to_have_css("transform", re.compile("matrix\\(2, 0"))
    page.keyboard.press("x")
    expect(pair.locator(".titles p").first).to_contain_text("Heun")
    page.keyboard.press("Escape")
    expect(pair).to_have_count(0)
    expect(page.locator(".cell:focus")).to_have_count(1)


def test_everything_by_keyboard_and_a_list_of_the_keys(cube, open_page):
    page = open_page(cube[2])
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.locator(".cell:focus").count():
            break
    cell = page.locator(".cell:focus")
    expect(cell).to_have_css("outline-style", "solid")
    assert page.locator(".cell[tabindex='0']").count() == 1
    page.keyboard.press("ArrowDown")
    page.keyboard.press("End")
    expect(cell).to_have_attribute("aria-label", re.compile("Heun, guidance_scale 7, seed 0"))
    page.keyboard.press("t")
    expect(cell).to_have_attribute("aria-label", re.compile("Heun, guidance_scale 7, seed 0"))
    page.keyboard.press("Enter")
    one = page.get_by_role("dialog")
    expect(one.get_by_role("row", name="num_inference_steps 3")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    keys = page.get_by_role("dialog", name="Keys")
    expect(keys).to_contain_text("one denoising step back, on")
    page.keyboard.press("Escape")
    expect(keys).to_have_count(0)
    assert page.get_by_role("grid").count() == 1


def test_cells_without_a_picture_say_why(viewer_engine, open_page, tmp_path):
    comparison = Comparison.parse(BASE, ["height=64,60", "seed=0,1"])
    runs = viewer_engine.compare(comparison)
    runs[1] = None
    page = open_page(write(viewer_engine, comparison, runs, tmp_path / "some.html"))
    expect(page.locator(".cell[data-status=failed]")).to_have_count(2)
    expect(page.locator(".cell[data-status=failed]").first).to_contain_text("received 60")
    expect(page.locator(".cell[data-status='not run']")).to_have_count(1)
    page.get_by_label("Denoising step", exact=True).press("Home")
    expect(page.locator(".at:visible")).to_have_text(["1/3"])


HOSTILE = ("</script><script>window.hacked = 1</script>", "<!-- \"'`${1}\\ --><img src=x "
           "onerror='window.hacked = 1'>", "🚗 日本語 naïve \u2028 | $title")


def test_no_text_breaks_the_page(viewer_engine, open_page, tmp_path):
    base = BASE.changed(num_inference_steps=1, negative_prompt=HOSTILE[0])
    comparison = Comparison.parse(base, ["seed=0", "prompt=" + "||".join(HOSTILE)])
    runs = viewer_engine.compare(comparison, shared=True)
    path = write(viewer_engine, comparison, runs, tmp_path / "hostile.html")
    page = open_page(path)
    expect(page.locator(".cell img")).to_have_count(3)
    assert [" ".join(text.split()) for text in headings(page, "columnheader")[1:]] == [
        " ".join(prompt.split()) for prompt in HOSTILE]
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_text(HOSTILE[0]).first).to_be_visible()
    assert page.evaluate("window.hacked") is None
    assert read_recipe(path) == comparison
    lone = Comparison.parse(BASE.changed(prompt=HOSTILE[0]), ["seed=0"])
    page = open_page(write(viewer_engine, lone, [None], tmp_path / "lone.html"))
    assert page.title() == HOSTILE[0]
    assert page.evaluate("window.hacked") is None


FRAMES = """async () => {
  const root = document.getElementById("host").shadowRoot;
  const box = root.querySelector(".table"), slider = root.querySelector("input.step");
  const cell = root.querySelector(".cell"), at = cell.getBoundingClientRect();
  const acts = {
    zoom: (i) => cell.dispatchEvent(new WheelEvent("wheel", { deltaY: i < 10 ? -20 : 20,
      ctrlKey: true, bubbles: true, cancelable: true, clientX: at.x + 50, clientY: at.y + 50 })),
    step: (i) => { slider.value = 1 + i % 2; slider.dispatchEvent(new Event("input")); },
    scroll: (i) => box.scrollTo(i * 40, i * 60),
  };
  const median = {};
  for (const [name, act] of Object.entries(acts)) {
    const times = [];
    for (let i = 0; i < 20; i += 1) {
      const before = performance.now();
      act(i);
      await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
      times.push((performance.now() - before) / 2);
    }
    median[name] = times.sort((a, b) => a - b)[10];
  }
  const painted = [...root.querySelectorAll(".table .frame")].filter((node) =>
    node.style.backgroundImage).length;
  return [median, painted];
}"""


def test_two_hundred_cells_without_lag(viewer_engine, open_page, tmp_path):
    scales = ",".join(str(1 + i / 4) for i in range(10))
    seeds = ",".join(map(str, range(20)))
    comparison = Comparison.parse(BASE.changed(num_inference_steps=2),
                                  [f"guidance_scale={scales}", f"seed={seeds}"])
    few = Comparison.parse(BASE.changed(num_inference_steps=2), ["seed=0,1,2,3"])
    made = viewer_engine.compare(few, shared=True)
    runs = [made[number % 4] for number in range(200)]  # the browser cannot tell
    page = open_page(write(viewer_engine, comparison, runs, tmp_path / "large.html"))
    assert page.locator(".cell").count() == 200
    median, painted = page.evaluate(FRAMES)
    assert max(median.values()) < 120, median  # milliseconds; 17 to 40 were seen
    assert painted < 150  # what is far out of view is left alone


def test_a_phone(cube, open_page):
    page = open_page(cube[2], 390, 844, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator(".pick").nth(0).tap()
    page.locator(".pick").nth(1).tap()
    pair = page.get_by_role("dialog")
    expect(pair.locator(".view")).to_have_count(2)
    box = pair.bounding_box()
    assert (box["x"], box["width"]) == (0, 390)
    assert pair.evaluate("node => node.scrollWidth <= node.clientWidth")
    for view in pair.locator(".view").all():
        assert view.bounding_box()["width"] >= 128
    pair.get_by_role("button", name="Close").tap()

    surface = page.locator(".cell").first.bounding_box()
    middle = [surface["x"] + 60, surface["y"] + 60]
    touch = page.context.new_cdp_session(page)

    def fingers(kind, *apart):
        points = [{"x": middle[0] + side * a, "y": middle[1], "id": i}
                  for a in apart for i, side in enumerate((-1, 1))]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    fingers("touchStart", 10)
    for apart in (20, 30, 40):
        fingers("touchMove", apart)
    fingers("touchEnd")
    expect(page.locator(".pane").first).not_to_have_css("transform", "none")
    assert len(turns(page)) == 1

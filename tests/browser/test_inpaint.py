"""In-painting as a person does it: strokes by mouse, clicks, outpainting, tries, Compare."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from browser.actions import open_page, settled
from pipelines import RunRequest
from pipelines.inpainting import masks
from pipelines.run_log import RunLog
from pipelines.stores import PictureStore

pytestmark = pytest.mark.browser
NONE_CHANGED = re.compile(r"^0 of [\d,]+ unmasked pixels changed\.$")


@pytest.fixture
def canvas_page(page, address):
    """The page with the sample car on its canvas, few steps, no feather."""
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Car on a road, 64 px").click()
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    for label, value in (("num_inference_steps", "2"), ("Feather, px", "0")):
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_label(label, exact=True).press("Enter")
        settled(page)
    return page


@pytest.fixture
def log(server):
    """The dashboard's run log and pictures."""
    return RunLog(server.home), PictureStore(server.home / "pictures")


def drag(page, *points):
    """A stroke through points, in parts of the canvas's sides."""
    box = page.locator("canvas.upper-canvas").bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def click(page, x, y):
    """On the canvas, in parts of its sides, wherever the page is scrolled to."""
    box = page.locator("canvas.upper-canvas").bounding_box()
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"], delay=60)


def choose(page, name):
    page.get_by_test_id("stMain").get_by_role("radio", name=name, exact=True).click()
    settled(page)


def leave_and_come_back(page):
    page.get_by_role("link", name="Runs").click(delay=60)  # a person's click lasts a while
    expect(page.get_by_role("heading", name="Runs", exact=True)).to_be_visible()
    page.get_by_role("link", name="In-paint").click(delay=60)
    expect(page.get_by_role("heading", name="In-paint", exact=True)).to_be_visible()
    settled(page)


def press(page, name):
    """A button below the canvas; those with a tooltip are drawn twice, one hidden."""
    button = page.locator(f".st-key-in-paint-{name} button:visible")
    expect(button).to_have_count(1)
    button.click()


def share(page):
    """A locator of the line that says how much will be repainted."""
    return page.get_by_text(re.compile(r"^[\d.]+% of the picture is repainted$"))


def repaint(page):
    page.get_by_role("button", name="Repaint").click()
    expect(page.locator(".pair img.after")).to_be_visible()
    expect(page.get_by_text(NONE_CHANGED)).to_be_visible()


def test_strokes_become_a_mask_and_a_picture(canvas_page, log):
    """A rectangle by mouse, erased in its middle; the mask of the run is what was drawn."""
    page = canvas_page
    expect(page.get_by_text("Nothing is masked yet")).to_be_visible()
    choose(page, "Rectangle")
    expect(page.get_by_text("Drag across what shall be repainted.")).to_be_visible()
    settled(page)
    drag(page, (0.25, 0.25), (0.75, 0.75))
    expect(share(page)).to_have_text(re.compile(r"^2[456]\.\d%"))
    choose(page, "Erase")
    expect(page.get_by_text("blue takes away")).to_be_visible()
    settled(page)
    drag(page, (0.375, 0.25), (0.625, 0.75))
    expect(share(page)).to_have_text(re.compile(r"^1[123]\.\d%"))
    drawn = share(page).inner_text()
    page.get_by_label("Prompt", exact=True).fill("a white house in the snow")
    repaint(page)

    run = log[0].runs(limit=1)[0]
    request = RunRequest(**run.request)
    mask = masks.as_mask(log[1].get(request.mask_image))
    wanted = np.zeros((64, 64), np.uint8)
    wanted[16:48, 16:24] = wanted[16:48, 40:48] = 255
    assert (np.abs(mask.astype(int) - wanted) > 0).sum() <= 64, "off by at most half a pixel"
    before, after = (np.asarray(log[1].get(sha)) for sha in (request.image, run.image_sha256))
    assert (before[mask == 0] == after[mask == 0]).all()
    assert (before[mask > 0] != after[mask > 0]).any()
    assert run.changed_unmasked_pixels == 0

    leave_and_come_back(page)
    choose(page, "Mask")
    expect(share(page)).to_have_text(drawn)
    page.reload()
    choose(page, "Mask")
    expect(share(page)).to_have_text(drawn)


def test_each_tool_draws_and_strokes_have_their_own_undo(canvas_page):
    """Circle, polygon and brush; undo, redo and reset of the canvas; clicks in between."""
    page = canvas_page
    tools = {name: page.get_by_role("button", name=name, exact=True)
             for name in ("Undo", "Redo", "Reset canvas & history")}

    def tool(name, hint):
        choose(page, name)
        expect(page.get_by_text(hint)).to_be_visible()
        settled(page)

    def on_canvas(name):
        page.locator("canvas.upper-canvas").hover()
        page.locator(".dc-icon-button").and_(tools[name]).click()

    tool("Circle", "Drag across, from left to right,")
    drag(page, (0.25, 0.25), (0.75, 0.75))
    expect(share(page)).to_have_text(re.compile(r"^39\.\d%"))  # a diameter of 0.71
    tool("Polygon", "Click the corners")
    for x, y in ((0.1, 0.1), (0.4, 0.1), (0.4, 0.2), (0.1, 0.2), (0.1, 0.1)):
        click(page, x, y)
    expect(share(page)).to_have_text(re.compile(r"^42\.\d%"))
    tool("Rectangle", "Drag across")
    for part in (42, 40, 39):  # the corners of a polygon are taken back one by one
        on_canvas("Undo")
        expect(share(page)).to_have_text(re.compile(rf"^{part}\.\d%"))
    for part in (40, 42, 42):
        on_canvas("Redo")
        expect(share(page)).to_have_text(re.compile(rf"^{part}\.\d%"))
    tool("Click", "Click on what you mean")
    tool("Brush", "Draw over what shall be repainted.")
    drag(page, (0.1, 0.9), (0.9, 0.9))
    expect(share(page)).to_have_text(re.compile(r"^(49|5[0-3])\.\d%"))
    on_canvas("Reset canvas & history")  # of the strokes; what was drawn before is mask by now
    expect(share(page)).to_have_text(re.compile(r"^42\.\d%"))
    press(page, "clear")
    expect(page.get_by_text("Nothing is masked yet")).to_be_visible()


def test_a_click_finds_the_subject_and_operations_have_a_way_back(canvas_page):
    page = canvas_page
    choose(page, "Click")
    reader = page.get_by_role("combobox", name="Clicks are read by")
    expect(reader).to_have_value("GrabCut (colours and edges; no model)")
    settled(page)
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    click(page, 0.5, 0.75)
    use = page.get_by_role("button", name="Mask it", exact=True)
    expect(use).to_be_enabled()
    settled(page)
    leave_and_come_back(page)
    expect(use).to_be_enabled()  # the click is still there, and can be taken back
    choose(page, "Not this")
    expect(page.get_by_text("Click on what was found too much.")).to_be_visible()
    settled(page)
    click(page, 0.5, 0.2)
    settled(page)
    expect(use).to_be_enabled()
    page.get_by_role("button", name="Get SAM").click()
    expect(page.get_by_text("HF_HUB_OFFLINE is set")).to_be_visible()
    page.keyboard.press("Escape")
    use.click()
    expect(use).to_be_disabled()
    settled(page)
    choose(page, "Brush")
    expect(page.get_by_text("Draw over what shall be repainted.")).to_be_visible()
    settled(page)
    found = share(page)
    expect(found).to_be_visible()
    part = float(found.inner_text().split("%")[0])
    assert 20 < part < 50, "the car"
    press(page, "invert")
    expect(found).to_have_text(f"{100 - part:.1f}% of the picture is repainted")
    press(page, "undo")
    expect(found).to_have_text(f"{part:.1f}% of the picture is repainted")


def test_a_picture_of_the_camera(page, address):
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Camera").click()
    page.wait_for_function("document.querySelector('video')?.readyState === 4")
    settled(page)
    page.get_by_role("button", name="Take Photo").click()
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    choose(page, "Rectangle")
    expect(page.get_by_text("Drag across what shall be repainted.")).to_be_visible()
    settled(page)
    drag(page, (0.25, 0.25), (0.75, 0.75))
    expect(share(page)).to_be_visible()


def test_no_canvas_is_made_before_its_width_is_known(page, address):
    """Made at a guess, it would be made anew at its width, and lose a stroke begun on it."""
    canvases = set()

    def note(frame):
        if isinstance(frame, bytes):
            canvases.update(re.findall(rb"canvas-[\w-]{12}-\d+", frame))

    page.add_init_script("""
        window.held = [];
        const Observer = window.ResizeObserver;
        window.ResizeObserver = class extends Observer {
          observe(node) {
            const tell = () => super.observe(node);
            node.className === "width" ? window.held.push(tell) : tell();
          }
        };""")
    page.on("websocket", lambda socket: socket.on("framereceived", note))
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Balloon, 512 px").click()
    expect(page.get_by_text("Nothing is masked yet")).to_be_visible()
    settled(page)
    assert not canvases
    page.evaluate("held.forEach(tell => tell()); held = { push: tell => tell() };")
    expect(page.locator("canvas.upper-canvas")).to_be_visible()


def test_fingers_draw_and_point(chromium, address):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True,
                                   has_touch=True)
    page = context.new_page()
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Car on a road, 64 px").tap()
    canvas = page.locator("canvas.upper-canvas")
    expect(canvas).to_be_visible()
    choose(page, "Rectangle")
    expect(page.get_by_text("Drag across what shall be repainted.")).to_be_visible()
    settled(page)
    canvas.scroll_into_view_if_needed()
    box, touch = canvas.bounding_box(), context.new_cdp_session(page)
    for kind, parts in (("touchStart", [0.2]), ("touchMove", [0.4]), ("touchMove", [0.7]),
                        ("touchEnd", [])):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [
            {"x": box["x"] + part * box["width"], "y": box["y"] + part * box["height"]}
            for part in parts]})
    expect(share(page)).to_have_text(re.compile(r"^(2[5-9]|30)\.\d%"))
    choose(page, "Click")
    expect(page.get_by_text("Click on what you mean")).to_be_visible()
    settled(page)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.touchscreen.tap(box["x"] + 0.5 * box["width"], box["y"] + 0.7 * box["height"])
    expect(page.get_by_role("button", name="Mask it", exact=True)).to_be_enabled()
    context.close()


def test_an_example_extends_a_picture_in_one_click_and_goes_on(page, address):
    open_page(page, f"{address}/inpaint", "In-paint")
    page.get_by_role("button", name="Extend the picture").click()
    after = page.locator(".pair img.after")
    expect(after).to_be_visible()
    size = after.evaluate("node => [node.naturalWidth, node.naturalHeight]")
    assert size == [128, 64]
    slider = page.get_by_label("Before and after")
    slider.focus()
    page.keyboard.press("Home")
    assert after.evaluate("node => getComputedStyle(node).clipPath") == "inset(0px 0px 0px 0%)"
    page.get_by_role("button", name="Go on with this picture").click()
    expect(page.get_by_text("Pictures on the way")).to_be_visible()
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    settled(page)
    page.get_by_role("button", name="Compare on this mask").click()
    expect(page.get_by_role("heading", name="Compare", exact=True)).to_be_visible()
    compare_strengths(page)


def compare_strengths(page):
    """Strengths by guidance scales on the mask that came along, and the way back to it."""
    part = share(page)
    expect(part).to_have_count(1)
    kept = part.inner_text()
    page.get_by_role("button", name="Remove scheduler", exact=True).click()
    settled(page)
    page.get_by_role("combobox", name=re.compile("^Axes")).fill("strength")
    page.keyboard.press("Enter")
    settled(page)
    page.keyboard.press("Escape")
    page.get_by_role("textbox", name="Columns: strength").fill("0.5, 1")
    page.get_by_role("textbox", name="Rows: guidance_scale").fill("1, 5")
    page.keyboard.press("Tab")
    expect(page.get_by_text("4 cells")).to_be_visible()
    page.get_by_role("button", name="Start comparison").click()
    expect(page.locator(".cell img")).to_have_count(4)
    expect(page.get_by_text(re.compile(r"^0 of [\d,]+ unmasked pixels changed in every finished")))\
        .to_be_visible()
    expect(page.locator(".caption").first).to_contain_text("changed 0 px")
    expect(part).to_have_text([kept, kept])  # in the setup and above the sheet
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    settled(page)
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_text(NONE_CHANGED)).to_be_visible()
    page.keyboard.press("Escape")
    expect(drawer).to_have_count(0)
    page.get_by_role("button", name="Change picture or mask").last.click()
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    expect(part).to_have_text(kept)


def test_hostile_uploads_are_refused_and_others_taken(page, address):
    open_page(page, f"{address}/inpaint", "In-paint")
    settled(page)
    chooser = page.locator(".st-key-in-paint-upload input[type=file]").element_handle()
    chooser.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(page.get_by_text("picture x.png: this file is no picture")).to_be_visible()
    settled(page)
    assert chooser.evaluate("node => node.isConnected"), "a file chosen meanwhile would be lost"
    picture = Image.new("RGBA", (120, 30), (200, 60, 30, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 30, 30))
    data = io.BytesIO()
    picture.save(data, "WEBP", lossless=True)
    page.locator(".st-key-in-paint-upload input[type=file]").set_input_files(
        {"name": "y.webp", "mimeType": "image/webp", "buffer": data.getvalue()})
    expect(page.locator("canvas.upper-canvas")).to_be_visible()
    page.get_by_role("button", name="Grow, load, extend").click()
    page.get_by_role("button", name="From the picture's transparency").click()
    page.keyboard.press("Escape")
    expect(share(page)).to_have_text("25.8% of the picture is repainted")

"""The JavaScript of the viewer and the components, module by module, in a real Chromium."""

import re
from pathlib import Path

import pytest

from pipelines.sheet.viewer import FOLDER
from pipelines.sheet.viewer.scripts import joined

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("pipelines", "dashboard")
                 for path in (ROOT / folder).rglob("*") if path.suffix in (".js", ".css", ".html"))
ENTRIES = [path for path in SOURCES
           if path.suffix == ".js" and "export default" in path.read_text("utf-8")]
SITE = "http://modules.test"
NAMES = ("sizes", "zoom", "steps", "facts", "difference", "arrangement", "viewer")


@pytest.fixture(scope="module")
def modules(chromium):
    """A page in which each of NAMES is a module of the viewer, imported as it is written."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, device_scale_factor=1)

    def answer(route):
        path = ROOT / route.request.url.removeprefix(SITE + "/")
        if path.is_file():
            route.fulfill(path=path, content_type="text/javascript")
        else:
            route.fulfill(body="<body>", content_type="text/html")

    context.route("**/*", answer)
    page = context.new_page()
    page.goto(SITE)
    for name in NAMES:
        page.evaluate("async ([name, url]) => { window[name] = await import(url); }",
                      [name, f"{SITE}/{(FOLDER / name).relative_to(ROOT).as_posix()}.js"])
    yield page
    context.close()


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_a_joined_module_needs_no_other(modules, path):
    script = joined(path)
    assert not re.search(r"^import\b", script, re.MULTILINE)
    assert modules.evaluate("""async (text) => {
      const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      return typeof (await import(url)).default;
    }""", script) == "function"


def test_a_module_that_two_others_import_is_joined_once(tmp_path):
    for name, text in {
        "base.js": "export const one = 1;\n",
        "left.js": 'import { one } from "./base.js";\nexport const left = one;\n',
        "top.js": 'import {\n  left,\n} from "./left.js";\nimport { one } from "./base.js";\n'
                  "export default left + one;\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert joined(tmp_path / "top.js") == (
        "const one = 1;\nconst left = one;\nexport default left + one;\n")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_lines_and_files_are_short(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 450
    assert not [number for number, line in enumerate(lines, 1) if len(line) > 100]


@pytest.mark.parametrize("width, height, room, tall, scale", [
    (64, 64, 500, 400, 6),  # whole device pixels
    (64, 64, 63, 400, 63 / 64),  # no smaller than it must be
    (1024, 512, 500, 400, 500 / 1024),
    (512, 1024, 500, 400, 400 / 1024),
])
def test_a_picture_grows_by_whole_pixels_and_shrinks_to_fit(
    modules, width, height, room, tall, scale
):
    assert modules.evaluate("(sizes) => window.sizes.fittingScale(...sizes)",
                            [width, height, room, tall]) == scale


@pytest.mark.parametrize("width, height, room, scale", [
    (64, 64, 300, 4),
    (64, 64, 20, 2),  # a cell is never narrower than 96 pixels
    (1024, 1024, 300, 1 / 4),
    (64, 1024, 900, 1 / 2),  # nor higher than 640
])
def test_a_cell_is_as_large_as_its_column(modules, width, height, room, scale):
    assert modules.evaluate("(sizes) => window.sizes.fittingCellScale(...sizes)",
                            [width, height, room]) == scale


def test_cells_grow_and_shrink_by_steps_and_end(modules):
    scales = modules.evaluate("""() => {
      const next = (scale, by) => window.sizes.nextCellScale(64, 64, scale, by);
      return [next(1, 1), next(8, 1), next(8, -1), next(17, 1) ?? "end", next(0.5, -1) ?? "end"];
    }""")
    assert scales == [2, 10, 6, "end", "end"]


def test_zoom_keeps_the_point_and_the_picture_in_view(modules):
    result = modules.evaluate("""() => {
      const zoom = new window.zoom.Zoom(() => {});
      const at = (px, py) => [zoom.x + px / zoom.scale, zoom.y + py / zoom.scale];
      zoom.by(3, 0.5, 0.5);
      const before = at(0.7, 0.2);
      zoom.by(2, 0.7, 0.2);
      const after = at(0.7, 0.2);
      const { scale } = zoom;
      zoom.pan(-9, 9);
      const corner = [zoom.x, zoom.y];
      zoom.by(1e6);
      const most = zoom.scale;
      zoom.by(1e-6);
      return { before, after, scale, corner, most, end: [zoom.scale, zoom.x, zoom.y] };
    }""")
    assert result["after"] == pytest.approx(result["before"])
    assert result["scale"] == 6
    assert result["corner"] == pytest.approx([5 / 6, 0])
    assert result["most"] == 64
    assert result["end"] == [1, 0, 0]


def test_two_fingers_keep_what_is_between_them(modules):
    before, after, scale = modules.evaluate("""() => {
      const zoom = new window.zoom.Zoom(() => {});
      zoom.set(2, 0.25, 0.25);
      const frame = { x: 10, y: 20, width: 200, height: 100 };
      const under = ({ x, y }) => [zoom.x + (x - frame.x) / frame.width / zoom.scale,
        zoom.y + (y - frame.y) / frame.height / zoom.scale];
      const before = under({ x: 110, y: 70 });
      window.zoom.pinch(zoom, frame, { x: 80, y: 70 }, { x: 140, y: 70 }, { x: 170, y: 70 });
      return [before, under({ x: 125, y: 70 }), zoom.scale];
    }""")
    assert scale == 3
    assert after == pytest.approx(before)


def test_steps_of_cells_with_different_counts_move_together(modules):
    assert modules.evaluate("""() => [1, 2, 3, 4, 5].map((position) => (
      [window.steps.frameAt(position, 5, 5), window.steps.frameAt(position, 5, 3)]))"""
    ) == [[0, 0], [1, 1], [2, 1], [3, 2], [4, 2]]  # fmt: skip
    texts = modules.evaluate("""() => {
      const steps = new window.steps.Steps({ onChange() {}, onWanted() { asked += 1; } });
      let asked = 0;
      const cell = (count, total) => ({ steps: Array(count).fill(0), total_steps: total });
      const texts = [steps.text];
      steps.update([cell(4, 4), cell(0, 0)]);
      texts.push(steps.text);
      steps.by(-1);
      steps.by(-1);
      texts.push(steps.text);
      steps.update([cell(4, 4), cell(2, 20)]);
      texts.push(steps.text, asked);
      return texts;
    }""")
    assert texts == ["no steps to show yet", "final pictures",
                     "predicted picture after step 2 of 4",
                     "predicted pictures at 50 % of the steps", 1]


def test_values_are_written_and_compared(modules):
    assert modules.evaluate("""() => [null, "", 0, false, [1, 2], "text"]
      .map(window.facts.valueText)""") == ["–", "–", "0", "false", "[1,2]", "text"]
    assert modules.evaluate("""() => [[2, 5], [0, 0.12345], [3, 0], [1, undefined]]
      .map((pair) => window.facts.comparedText(...pair))""") == ["2.50 ×", "+0.123", "-3", ""]


def test_the_difference_of_pixels_is_amplified_and_measured(modules):
    rgba, text, equal = modules.evaluate("""() => {
      const { difference, differenceText } = window.difference;
      const one = [10, 20, 30, 255, 0, 0, 0, 255];
      const result = difference(one, [13, 20, 29, 255, 0, 0, 200, 255], 4);
      return [[...result.rgba], differenceText(result), differenceText(difference(one, one, 4))];
    }""")
    assert rgba == [12, 0, 4, 255, 0, 0, 255, 255]
    assert text == "mean 34.00, largest 200 of 255; 100.0 % of the pixels differ"
    assert equal == "equal in every pixel"


def test_axes_change_places_and_what_is_kept_must_fit(modules):
    result = modules.evaluate("""() => {
      const { Arrangement } = window.arrangement;
      const axes = [["a", "b"], ["c", "d", "e"], ["f", "g"]].map((labels) => ({ labels }));
      const first = new Arrangement(axes, null);
      const roles = ({ rows, columns, inner }) => [rows, columns, inner];
      const steps = [roles(first)];
      first.assign("inner", 0);
      first.assign("columns", 2);
      steps.push(roles(first));
      first.toggle(1, 2);
      first.move(1, 0, 1);
      const kept = JSON.parse(JSON.stringify(first));
      return { steps, others: first.others, visible: first.visible(1), at: first.at(null, 1, 0),
        turned: first.neighbour(1, -1), again: new Arrangement(axes, kept).visible(1),
        other: new Arrangement(axes.slice(1), kept).visible(0) };
    }""")
    assert result["steps"] == [[0, 1, None], [None, 2, 0]]
    assert result["others"] == [1]
    assert result["visible"] == result["again"] == [1, 0]
    assert result["at"] == [0, 0, 1]
    assert result["turned"] == 1
    assert result["other"] == [0, 1, 2]


def test_steps_that_come_while_two_cells_are_open_are_shown(modules):
    """The dashboard sends strips only when somebody asks for a step."""
    frames = modules.evaluate("""() => {
      const pen = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
      const picture = pen.toDataURL();
      const cell = (seed, strip) => ({ at: [seed], label: `seed ${seed}`, status: "ok", text: "",
        run_id: seed, picture, strip, steps: [1, 2], total_steps: 2, width: 8, height: 8,
        values: {}, texts: {}, marks: [], notes: [], params: {} });
      const data = (strip) => ({ id: "", axes: [{ name: "seed", labels: ["0", "1"] }],
        measures: [], base: {}, cells: [cell(0, strip), cell(1, strip)], width: 8, height: 8 });
      const viewer = new window.viewer.Viewer(document.body);
      viewer.update(data(null));
      viewer.pick(0);
      viewer.pick(1);
      viewer.steps.set(1);
      viewer.pair.paint();
      const shown = () => [...viewer.pair.stage.querySelectorAll(".frame")]
        .filter((frame) => !frame.hidden).length;
      const before = shown();
      viewer.update(data(picture));
      viewer.pair.paint();
      const after = shown();
      viewer.destroy();
      return [before, after];
    }""")
    assert frames == [0, 2]

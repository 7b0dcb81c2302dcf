"""What a draw costs, as counts: pictures decoded, files read, cells made; no times."""

import json
import operator
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from apptest import component_data, html, page
from PIL import Image, ImageFile
from sqlalchemy import Engine, event

import pipelines.comparison
from dashboard import state
from pipelines import Comparison, JobQueue, RunRequest
from pipelines.comparison import forecast
from pipelines.errors import LoadError, StorageError
from pipelines.inpainting import masks
from pipelines.jobs import submit_comparison
from pipelines.log_tables import ComparisonRow, Distance, Run, Timing, utc_now
from pipelines.models.info import describe
from pipelines.run_log import RunLog
from pipelines.sheet.live import LiveComparison
from pipelines.sheet.viewer import viewer_data

WEIGHTS = Path(pipelines.__file__).parent / "postcards" / "weights"
BASE = RunRequest(prompt="a red car on a road", num_inference_steps=2)


@pytest.fixture
def decoded(monkeypatch):
    """The sizes of the pictures that were decoded from files, in order."""
    sizes, load = [], ImageFile.ImageFile.load

    def counted(image):
        if image.tile:  # empty once it was decoded
            sizes.append(image.size)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    return sizes


def test_the_size_of_a_picture_is_read_without_decoding_it(engine, decoded):
    sha = engine.pictures.put(Image.new("RGB", (120, 80)))
    assert engine.pictures.size(sha) == (120, 80)
    assert engine.pictures.size(sha) == (120, 80)
    assert decoded == []
    assert engine.pictures.get(sha).size == (120, 80)
    assert decoded == [(120, 80)], "the count counts"
    engine.pictures.path(sha).unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        engine.pictures.size(sha)


def test_which_cells_are_in_the_log_is_found_without_decoding_their_pictures(engine, decoded):
    image = engine.pictures.put(Image.new("RGB", (72, 100), "red"))
    mask = Image.new("L", (72, 100))
    mask.paste(255, (8, 8, 40, 40))
    inpainting = BASE.changed(task="inpainting", image=image, strength=0.5,
                              mask_image=engine.pictures.put(mask))
    from_image = BASE.changed(task="image-to-image", image=image, strength=0.5)
    for base in (inpainting, from_image):
        run = engine.run(base, keep_latents=True)
        assert run.status == "ok", run.error
        decoded.clear()
        comparison = Comparison.parse(base, ["seed=0..29"])
        assert engine.in_log(comparison) == [0]
        assert decoded == []
    assert (run.width, run.height) == (72, 96), "the picture's own, rounded down"
    engine.pictures.path(image).unlink()
    assert engine.in_log(comparison) == [], "without its picture it cannot be made"


@pytest.fixture
def described(engine, monkeypatch):
    """The models whose files were looked at, in order."""
    asked, describe = [], type(engine.registry).describe

    def counted(registry, model_id, *rest):
        asked.append(model_id)
        return describe(registry, model_id, *rest)

    monkeypatch.setattr(type(engine.registry), "describe", counted)
    return asked


def test_a_forecast_looks_at_each_model_once(engine, described):
    comparison = Comparison.parse(BASE, ["model_id=postcards,postcards-ddpm,no/such", "seed=0..99"])
    expected = forecast([cell.request for cell in comparison.cells], engine.run_log,
                        engine.registry)
    assert expected.nfe == 600
    assert described == ["postcards", "postcards-ddpm", "no/such"]


def test_a_start_looks_at_each_model_once(engine, described):
    jobs = JobQueue(engine, {})
    jobs.close()
    job = submit_comparison(jobs, Comparison.parse(BASE, ["seed=0..99"]))
    assert job.total == 200 and described == ["postcards"] * 2, "the costs and the forecast"


class ConfigReads:
    """Names of the config files of models that this process opens, as the interpreter reports."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.listening = False
        sys.addaudithook(self.hear)  # cannot be removed again

    def hear(self, event: str, arguments: tuple) -> None:
        if self.listening and event == "open":
            name = os.path.basename(str(arguments[0]))
            if name == "model_index.json" or name.endswith("config.json"):
                self.names.append(name)


config_reads = ConfigReads()


@pytest.fixture
def read_configs():
    """The config files of models that were opened, in order."""
    config_reads.names.clear()
    config_reads.listening = True
    yield config_reads.names
    config_reads.listening = False


def test_a_model_is_read_once_until_a_file_of_it_changes(tmp_path, read_configs):
    folder = tmp_path / "model"
    shutil.copytree(WEIGHTS, folder)
    read_configs.clear()
    first = describe(str(folder))
    assert read_configs.count("model_index.json") == 1
    read_configs.clear()
    assert describe(str(folder)) is first
    assert first.schedulers and not first.needs_prior
    assert read_configs == []

    config = folder / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 48}))
    assert describe(str(folder)).height == 48 * 4
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(LoadError, match="no weights"):
        describe(str(folder))


def captions(app):
    return "\n".join(caption.value for caption in app.caption)


@pytest.fixture
def loaded():
    """The ids of the runs that were read from a log, in order."""
    ids = []

    def hear(run, _context):
        ids.append(run.id)

    event.listen(Run, "load", hear)
    yield ids
    event.remove(Run, "load", hear)


def test_a_look_at_a_comparison_costs_what_changed(engine, loaded):
    comparison = Comparison.parse(BASE, ["seed=0..3"])
    log = engine.run_log
    log.add(ComparisonRow(id="live", datetime_utc=utc_now(), base=BASE.model_dump(mode="json"),
                          axes=[axis.as_dict() for axis in comparison.axes]))
    live = LiveComparison(engine, "live")
    assert list(live.look().runs) == [None] * 4

    def make(number):
        cell = comparison.cells[number]
        run = engine.run(cell.request, comparison_id="live", axes=cell.axes)
        loaded.clear()
        return run

    second = make(2)
    before = live.look()
    assert loaded == [second.id] and before.runs[2].id == second.id
    first = make(0)
    now = live.look()
    assert loaded == [first.id], "the other is not read again"
    assert changed(before, now) == [0]

    loaded.clear()
    assert live.look() is now and loaded == []
    other = RunLog(engine.home)  # another program
    other.add(Timing(run_id=first.id, datetime_utc=utc_now(), text_encoding_ms=1, denoising_ms=2,
                     decoding_ms=3, total_ms=6))
    before, now = now, live.look()
    assert changed(before, now) == [0] and now.records[0]["measured"]["median_ms"] == 6

    other.set_reference("live", "seed=0")
    other.keep_distance(Distance(run_id=second.id, reference_id=first.id, psnr=20))
    before, now = now, live.look()
    assert changed(before, now) == [2] and now.records[2]["psnr"] == 20
    other.keep_distance(Distance(run_id=second.id, reference_id=first.id, psnr=20, clip_score=30))
    before, now = now, live.look()
    assert changed(before, now) == [2] and now.records[2]["clip_score"] == 30

    again = make(2)
    log.update(again, steps_sha256="a" * 64, steps_shown=[1, 2])
    before, now = now, live.look()
    assert loaded.count(second.id) == 0 and now.runs[2].id == again.id
    assert changed(before, now) == [2] and now.records[2]["psnr"] is None
    log.update(again, steps_sha256="b" * 64, steps_shown=[2])
    assert live.look().runs[2].steps_shown == [2]


def changed(before, now):
    """The numbers of the cells that have another record."""
    return [number for number, (old, new) in enumerate(zip(before.records, now.records,
                                                           strict=True)) if old is not new]


def test_the_viewer_keeps_the_cells_that_are_the_same(engine):
    comparison = Comparison.parse(BASE, ["seed=0..2"])
    engine.compare(comparison, comparison_id="kept")
    look, drawn = LiveComparison(engine, "kept").look(), {}

    def cells(address="{}", records=look.records):
        return viewer_data(comparison, look.runs, records, lambda run, kind: address.format(run.id),
                           drawn=drawn)["cells"]

    first = cells()
    assert all(map(operator.is_, first, cells()))
    records = [look.records[0], dict(look.records[1], psnr=12.0), look.records[2]]
    assert list(map(operator.is_, first, cells(records=records))) == [True, False, True]
    assert [cell["picture"] for cell in cells("{}.png")] == [f"{run.id}.png" for run in look.runs]


def test_a_second_draw_of_a_comparison_reads_no_run_and_makes_no_cell_again(
    filled, loaded, monkeypatch
):
    made, request_with = [], pipelines.comparison.request_with
    monkeypatch.setattr(pipelines.comparison, "request_with",
                        lambda *cell: made.append(cell) or request_with(*cell))
    app = page("compare", comparison="first")
    assert len(component_data(app, "contact_sheet.sheet")["cells"]) == 2
    assert {run.id for run in filled.run_log.runs(comparison_id="first")} <= set(loaded)
    loaded.clear()
    made.clear()
    app.run()
    assert len(component_data(app, "contact_sheet.sheet")["cells"]) == 2
    assert loaded == []
    assert len(made) == 6 * 5, "those of the form alone"


def test_a_draw_of_runs_reads_the_rows_of_its_page(filled, loaded):
    columns = filled.run_log.run(1).as_dict()
    del columns["id"]
    for _ in range(60):
        filled.run_log.add(Run(**columns))
    app = page("runs")
    statements = []

    def hear(_connection, _cursor, statement, *_):
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", hear)
    loaded.clear()
    app.run()
    assert len(loaded) == 25
    assert not [sql for sql in statements if "count(" in sql or "DISTINCT" in sql]
    filled.run_log.add(Run(**columns | {"model_id": "another"}))
    app.run()
    assert [sql for sql in statements if "count(" in sql]
    assert "another" in app.selectbox(key="runs.model").options
    event.remove(Engine, "before_cursor_execute", hear)


@pytest.mark.parametrize("name", ["generate", "compare", "inpaint"])
def test_a_draw_reads_each_file_of_a_model_once_at_most(home, read_configs, name):
    app = page(name)
    assert not app.exception
    assert Counter(read_configs)["model_index.json"] <= 2, "two bundled models"
    read_configs.clear()
    app.run()
    assert read_configs == []


def test_widgets_of_in_paint_neither_decode_the_picture_nor_feather_the_mask(
    home, decoded, monkeypatch
):
    feathered, feather = [], masks.feather
    monkeypatch.setattr(masks, "feather",
                        lambda mask, pixels: feathered.append(pixels) or feather(mask, pixels))
    app = page("inpaint")
    app.button(key="in-paint.sample.balloon").click().run()
    app.button(key="in-paint.invert").click().run()
    assert "100.0% of the picture is repainted" in html(app)
    decoded.clear()
    feathered.clear()
    app.number_input(key="in-paint.count").set_value(3).run()
    app.slider(key="in-paint.strength").set_value(0.4).run()
    assert "3 pictures" in captions(app)
    assert set(decoded) <= {(192, 192)}, "thumbnails alone"
    assert feathered == []
    app.number_input(key="in-paint.feather").set_value(20).run()
    assert set(decoded) <= {(192, 192)} and feathered == [20, 0]


def test_the_form_of_a_comparison_decodes_its_pictures_once(home, decoded):
    pictures = state.engine().pictures
    mask = Image.new("L", (400, 300))
    mask.paste(255, (8, 8, 200, 200))
    values = {"compare.task": "inpainting", "compare.image": pictures.put(Image.new(
        "RGB", (400, 300), "red")), "compare.carried": {"mask_image": pictures.put(mask)},
        "compare.axes": ["strength", "seed"], "compare.values.strength": "0.5, 1",
        "compare.values.seed": "0..9"}
    app = page("compare", values)
    assert "20 cells" in captions(app)
    assert decoded.count((400, 300)) == 2, "picture and mask"
    decoded.clear()
    app.text_input(key="compare.values.seed").set_value("0..19").run()
    assert "40 cells" in captions(app)
    assert set(decoded) <= {(192, 144)}, "the thumbnail alone"

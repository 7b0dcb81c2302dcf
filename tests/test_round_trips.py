"""Settings travel as values: through texts, command line, pages, log, recipes, tables, the viewer.

Some 3,300 values and lists of values by way of an axis's text, 1,000 adapters, 400 requests by way
of a page's widgets, and 96 cells by way of everything.
"""

import csv
import io
import json

import pytest
from apptest import component_data, page
from nasty import LARGEST_SEED, NUMBERS, OPTIONS, PATHS, SEEDS, TEXTS, random_texts
from streamlit.testing.v1 import AppTest

from dashboard import state
from dashboard.form.axes import format_rules, parse_rules
from pipelines import Comparison, RunRequest, cli
from pipelines.axes import format_values, make_axis, parse_values
from pipelines.log_tables import ComparisonRow
from pipelines.references import cell_texts, reference_cells
from pipelines.request import Lora
from pipelines.sheet.recipe import read_recipe

BASE = RunRequest(prompt="a red car")
WORDS = list(dict.fromkeys([*TEXTS, *random_texts(2, 250)]))
PLACES = [text for text in dict.fromkeys([*PATHS, *WORDS]) if text and len(text) < 500]
WEIGHTS = (1, 0.5, 1e-7, -10 / 3)


def lists():
    """Names of axes, values, and for some the value that is looked for."""
    for text in WORDS:
        yield "prompt", [text, "b2"], None
        yield "prompt", ["b2", text], None
        yield "seed+prompt", [[1, text], [2, "b2"]], None
        yield "prompt+seed", [[text, 1], ["b2", 2]], None
        yield "scheduler_options.x", [text, "b2"], None
        if text:
            yield "prompt_replace", [text, "", "b2"], None
            yield "negative_prompt_replace", ["", "b2"], text
            yield "seed+prompt_replace_2", [[1, text], [2, ""]], None
    for path in PLACES:
        yield "loras", [[{"path": path, "weight": 0.1 + 0.2}], [], [{"path": path}, {"path": "b"}]
                        ], None
        if not path.startswith("@") or path == "@":
            yield "model_id", [path, "postcards"], None
    for number in NUMBERS:
        yield "guidance_scale", [None, number], None
        if 0 < number <= 1:
            yield "strength", [number, 0.5], None
    for option in OPTIONS:
        yield "scheduler_options.x", [option, "b2"], None
    yield "seed", SEEDS, None
    yield "compile", [True, False], None
    yield "scheduler", ["default", "ddim"], None
    yield "torch_dtype", [None, "float32"], None


def test_an_axis_survives_its_text():
    cases, plain = 0, 0
    for name, values, search in lists():
        axis = make_axis(name, values, BASE, search)
        text = format_values(axis, BASE)
        assert repr(parse_values(name, text, BASE)) == repr(axis), text
        assert repr(axis.from_dict(json.loads(json.dumps(axis.as_dict())))) == repr(axis)
        assert len(set(axis.labels)) == len(axis.values), axis.labels
        cases, plain = cases + 1, plain + (not text.startswith(":="))
    assert cases > 3_300
    assert plain > 1_500, "JSON is for what plain text cannot hold"


def test_an_adapter_survives_its_text():
    for path in PLACES:
        for weight in WEIGHTS:
            lora = Lora(path=path, weight=weight)
            assert len(str(lora).splitlines()) == 1
            assert RunRequest(loras=[str(lora)]).loras == (lora,)
    assert str(Lora(path="style.safetensors", weight=0.5)) == "style.safetensors=0.5"


def test_rules_and_reference_cells_survive_their_texts():
    for rules in ([f"prompt={a}", f"prompt={b}"] for a, b in zip(WORDS, WORDS[1:], strict=False)):
        assert parse_rules(format_rules(rules)) == tuple(rules)
    assert parse_rules("a=1; b=2") == ("a=1", "b=2")
    axes = (make_axis("seed", (1, LARGEST_SEED)), make_axis("guidance_scale", NUMBERS[6:8]),
            make_axis("prompt", [word for word in WORDS if len(word) < 99][:99:2]))
    comparison = Comparison(BASE, axes)
    for number, text in enumerate(cell_texts(comparison)):
        assert set(reference_cells(comparison, text)) == {number}, text


def put_and_read():
    """A page's script: each request into the widgets, and out of them."""
    import streamlit as st

    from dashboard.state import GENERATE

    for request in st.session_state.requests:
        GENERATE.put(request)
        st.session_state.read.append(GENERATE.request())


def add_models():
    """A page's script: models put on the axis of Compare, one after the other."""
    import streamlit as st

    from dashboard.state import COMPARE, compare_model

    for path in st.session_state.paths:
        compare_model(path, None, None)
    st.session_state["text"] = COMPARE.get("values.model_id")


def test_models_are_added_to_the_axis_whatever_their_paths_hold(home):
    app = AppTest.from_function(add_models)
    paths = [path for path in PATHS if not path.endswith("@")]
    app.session_state["paths"], app.session_state["text"] = paths, ""
    app.run()
    assert not app.exception
    assert parse_values("model_id", app.session_state["text"], BASE).values == (
        "postcards", *paths)


def requests():
    from_picture = {"task": "image-to-image", "image": "a" * 64}
    for text in WORDS:
        yield BASE.changed(prompt=text, negative_prompt=text)
    for path in PLACES[:80]:
        model = {} if path.startswith("@") else {"model_id": path}
        yield BASE.changed(**model, loras=[{"path": path, "weight": 0.1 + 0.2}])
    for number in NUMBERS:
        yield BASE.changed(guidance_scale=number, eta=min(number, 1))
        if 0 < number <= 1:
            yield BASE.changed(**from_picture, strength=number)
    for seed in SEEDS:
        yield BASE.changed(seed=seed)
    yield BASE.changed(scheduler_options={text: text for text in WORDS})
    yield BASE.changed(scheduler_options={str(n): option for n, option in enumerate(OPTIONS)})


def test_a_request_survives_the_widgets_of_a_page():
    app = AppTest.from_function(put_and_read)
    given = list(requests())
    app.session_state["requests"], app.session_state["read"] = given, []
    app.run()
    assert not app.exception
    assert len(given) > 400
    for request, read in zip(given, app.session_state["read"], strict=True):
        assert repr(read) == repr(request)


@pytest.fixture
def command(home, tmp_path, monkeypatch, capsys, session_engine):
    """Run a command line in this process; its exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipelines.engine.Registry", lambda device: session_engine.registry)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        return ended.value.code, capsys.readouterr().out

    return call


def large_integers(value):
    """The integers of a JSON that a browser would round."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return [number for part in parts for number in large_integers(part)]
    return [value] if isinstance(value, int) and abs(value) > 2**53 - 1 else []


def test_a_sheet_of_nasty_values_is_the_same_everywhere(command, home):
    prompts, linked = list(TEXTS), [[LARGEST_SEED, 1.2345678], [2**53 + 1, 1.2345679]]
    code, out = command(
        "compare", "a red car", "--axis", f"prompt:={json.dumps(prompts)}",
        "--axis", f"seed+guidance_scale:={json.dumps(linked)}", "--num-inference-steps", "1",
        "--skip", 'prompt:="skip:skip:"', "--skip", f"seed={2**53 + 1},prompt!=a b", "--json",
        "-o", "s.png", "--html", "s.html", "--csv", "s.csv")  # fmt: skip
    printed = json.loads(out)
    cells = [(prompt, *pair) for prompt in prompts for pair in linked
             if prompt != "skip:skip:" and (prompt == "a b" or pair is linked[0])]
    assert code == 0
    assert [(cell["axes"]["prompt"], *cell["axes"]["seed+guidance_scale"])
            for cell in printed["cells"]] == cells

    # The log, and what carries its recipe.
    log = state.engine().run_log
    row = log.comparison(printed["comparison_id"])
    comparison = Comparison.from_row(row)
    assert sorted((run.prompt, run.seed, run.guidance_scale)
                  for run in log.runs(comparison_id=row.id)) == sorted(cells)
    for name in ("s.png", "s.html"):
        assert read_recipe(home / name) == comparison, name
    _, data = (home / "s.html").read_text("utf-8").split('id="data">')
    viewer = json.loads(data[: data.index("</script>")])
    (home / "r.json").write_text(viewer["files"]["recipe"]["text"], "utf-8")
    assert read_recipe(home / "r.json") == comparison
    assert comparison == Comparison.from_row(ComparisonRow(
        id="", datetime_utc="", base=row.base, axes=row.axes, skip=row.skip))

    # The tables, and what a browser gets.
    with (home / "s.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    exported = list(csv.DictReader(io.StringIO(viewer["files"]["csv"]["text"], newline="")))
    for table in (rows, exported):
        assert [(r["prompt"], int(r["seed"]), float(r["guidance_scale"])) for r in table] == cells
        assert [json.loads(r["seed+guidance_scale"]) for r in table] == [
            list(cell[1:]) for cell in cells]
    assert len(set(viewer["axes"][0]["labels"])) == len(prompts)
    assert viewer["axes"][1]["labels"] == [f"{LARGEST_SEED} + 1.2345678",
                                           f"{2**53 + 1} + 1.2345679"]
    app = page("compare", comparison=row.id)
    shown = [viewer, component_data(app, "contact_sheet.sheet")]
    assert [large_integers(data) for data in shown] == [[], []]
    assert {str(LARGEST_SEED), str(2**53 + 1)} <= {
        str((data["base"] | cell["params"])["seed"]) for data in shown for cell in data["cells"]}

    # The page's widgets: the same cells, so that the log has them all.
    app.button(key="again").click().run()
    assert not app.exception
    assert f"**{len(cells)} cells**, all in the log already" in [c.value for c in app.caption]
    app.session_state["opened_run"] = printed["cells"][0]["run_id"]
    app.run()
    assert [large_integers(json.loads(element.value)) for element in app.json] == [[]] * 3


def test_large_seeds_and_prompts_that_differ_in_case_make_files_of_their_own(command, home):
    code, out = command(
        "compare", "x", "--seed", "10000000000000001", "--num-images-per-prompt", "2",
        "--axis", "scheduler=ddim", "--axis", "num_inference_steps=1",
        "--axis", "prompt=a Red car||a red car", "--json", "-o", "s.png")  # fmt: skip
    printed = json.loads(out)
    assert code == 0
    assert {cell["axes"]["seed"] for cell in printed["cells"]} == {10**16 + 1, 10**16 + 2}
    assert len({sheet.casefold() for sheet in printed["sheets"]}) == 4
    assert all((home / sheet).is_file() for sheet in printed["sheets"])


def test_an_adapter_with_an_equals_sign_reaches_the_command_line(command, home):
    (home / "rank=8.safetensors").write_bytes(b"no weights")
    code, out = command("generate", "x", "--lora", "rank=8.safetensors", "--json")
    run, = state.engine().run_log.runs()
    assert run.request["loras"] == [{"path": "rank=8.safetensors", "weight": 1.0}]
    assert code == 1 and run.status == "failed" and "rank=8.safetensors" in run.error

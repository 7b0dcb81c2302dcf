"""Models that a provider runs: what is sent, what is refused, what goes wrong, what is said."""

import base64
import io
import json
import threading
import time

import pytest
from apptest import finish, html, page
from PIL import Image
from provider import Provider, Reply, png

from dashboard import state
from pipelines import Axis, Comparison, RunRequest, measuring
from pipelines.analysis import methods
from pipelines.errors import Cancelled, NoFurther, RequestError, UnknownModelError
from pipelines.models.hosted import what_leaves
from pipelines.provenance.record import run_truth
from pipelines.sheet.draw import subtitle
from pipelines.study.design import Study
from pipelines.study.prompts import Prompt

HOSTED = "hf-inference:o/n"
WAIT = 20  # seconds


@pytest.fixture
def provider(monkeypatch):
    """A provider that CONTACT_SHEET_INFERENCE_URL names, and a token for it."""
    server = Provider()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("CONTACT_SHEET_INFERENCE_URL", server.url + "/models/{model}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_tests")
    yield server
    server.close()


@pytest.fixture
def router(provider, monkeypatch):
    """The same in the place of the Hub and of its router."""
    from huggingface_hub.inference._providers import _common, hf_inference

    monkeypatch.delenv("CONTACT_SHEET_INFERENCE_URL")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", provider.url)
    monkeypatch.setattr("huggingface_hub.constants.INFERENCE_PROXY_TEMPLATE",
                        provider.url + "/{provider}")
    _common._fetch_inference_provider_mapping.cache_clear()
    hf_inference._check_supported_task.cache_clear()
    yield provider
    _common._fetch_inference_provider_mapping.cache_clear()


def hosted(**fields):
    return RunRequest(**{"model_id": HOSTED, "prompt": "a red car"} | fields)


def grid(*seeds, **fields):
    return Comparison(hosted(**fields), (Axis("seed", seeds),))


def until(condition):
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- what is sent, and what comes back


def test_what_the_provider_takes_is_sent_and_the_picture_is_logged(engine, provider):
    run = engine.run(hosted(negative_prompt="blue", height=32, width=48, num_inference_steps=7,
                            guidance_scale=3, seed=5, scheduler="ddim"))
    asked, = provider.asked
    assert asked.path == "/models/o/n" and asked.token == "Bearer hf_of_tests"
    assert asked.body == {"inputs": "a red car", "parameters": {
        "negative_prompt": "blue", "height": 32, "width": 48, "num_inference_steps": 7,
        "guidance_scale": 3.0, "seed": 5, "scheduler": "DDIMScheduler"}}
    logged = engine.run_log.run(run.id)
    assert (logged.status, logged.damage, logged.hosted) == ("ok", "", True)
    assert engine.pictures.get(logged.image_sha256).size == (48, 32) == (run.width, run.height)
    assert logged.noise_sha256 is logged.nfe is logged.denoising_ms is None
    assert logged.total_ms > 0 and logged.device == "hosted"
    told = logged.environment["provider"]
    assert told["headers"] == {"x-compute-time": "0.25", "x-compute-type": "gpu"}
    assert told["provider"] == "127.0.0.1"
    assert any("initial noise is unknown" in note for note in logged.notes)
    assert "not told by the provider: cost" in logged.notes


def test_what_was_left_to_the_provider_is_not_made_up(engine, provider):
    run = engine.run(hosted())
    assert provider.asked[0].body["parameters"] == {"seed": 0}
    assert run.asked("num_inference_steps") is run.asked("guidance_scale") is None
    truth = run_truth(engine, run)
    assert truth.record["models"][0]["provider"] == "127.0.0.1"
    assert "files" not in truth.record["models"][0]
    assert not {"Steps", "CFG scale", "RNG"} & {
        part.partition(":")[0].strip() for part in truth.parameters.splitlines()[-1].split(",")}


def test_a_cost_that_is_told_is_logged(engine, provider):
    provider.headers = {"x-total-cost": "0.0021"}
    run = engine.run(hosted())
    assert run.environment["provider"]["headers"] == {"x-total-cost": "0.0021"}
    assert "not told by the provider: computing time" in run.notes


def test_a_picture_to_start_from_is_sent_without_what_is_in_its_file(engine, provider, picture):
    run = engine.run(hosted(task="image-to-image", image=picture, guidance_scale=2))
    assert run.status == "ok", run.error
    parameters = provider.asked[0].body["parameters"]
    assert parameters == {"prompt": "a red car", "guidance_scale": 2.0}
    sent = Image.open(io.BytesIO(base64.b64decode(provider.asked[0].body["inputs"])))
    assert sent.size == (64, 64) and sent.info == {}
    assert sent.tobytes() == engine.pictures.get(picture).tobytes()
    assert "seed: not passed, image-to-image takes none of a provider" in run.notes


@pytest.mark.parametrize(("fields", "words"), [
    ({"eta": 0.5}, "eta: received 0.5"),
    ({"scheduler_options": {"a": 1}, "guidance_rescale": 0.5},
     "scheduler_options: received {'a': 1}; guidance_rescale: received 0.5"),
    ({"torch_dtype": "float16"}, "torch_dtype: received 'float16'"),
    ({"loras": "a.safetensors"}, "loras: received"),
    ({"scheduler": "dpmpp_2m_karras"}, "scheduler: received 'dpmpp_2m_karras'"),
    ({"model_id": f"{HOSTED}@fal-ai", "scheduler": "ddim"}, "scheduler: received 'ddim'"),
    ({"model_id": f"{HOSTED}@nscale", "num_inference_steps": 3}, "num_inference_steps: received 3"),
    ({"width": 64}, "width: received 64 without height"),
])
def test_what_it_does_not_take_is_refused_by_name(engine, provider, monkeypatch, fields, words):
    if "@" in fields.get("model_id", ""):
        monkeypatch.delenv("CONTACT_SHEET_INFERENCE_URL")
    with pytest.raises(RequestError) as error:
        engine.check(hosted(**fields))
    assert str(error.value).startswith(words) and HOSTED in str(error.value)
    assert str(error.value) == engine.run(hosted(**fields)).error
    assert not provider.asked


@pytest.mark.parametrize("model_id", [
    "hf-inference:", "hf-inference:o", "hf-inference:o/n@", "hf-inference:o/n@nobody",
    "hf-inference:../../x/y"])
def test_a_name_that_cannot_be_one_is_refused(engine, model_id):
    with pytest.raises(UnknownModelError, match="accepted"):
        engine.registry.describe(model_id)


def test_an_address_or_a_time_out_that_cannot_be_used_is_refused(engine, monkeypatch, provider):
    monkeypatch.setenv("CONTACT_SHEET_INFERENCE_TIMEOUT", "soon")
    assert "CONTACT_SHEET_INFERENCE_TIMEOUT: received 'soon'" in engine.run(hosted()).error
    monkeypatch.setenv("CONTACT_SHEET_INFERENCE_URL", "http://example.org/{model}")
    assert "CONTACT_SHEET_INFERENCE_URL" in engine.run(hosted()).error
    assert not provider.asked


# --- the router


def test_the_router_is_asked_for_the_named_provider(engine, router):
    router.mapping = {"hf-inference": "text-to-image", "nscale": "text-to-image"}
    run = engine.run(hosted(model_id=f"{HOSTED}@nscale"))
    assert run.status == "ok", run.error
    assert router.asked[0].path == "/nscale/v1/images/generations"
    assert run.environment["provider"]["provider"] == "nscale"


def test_without_a_name_the_first_is_taken_and_what_it_drops_is_noted(engine, router):
    router.mapping = {"nscale": "text-to-image"}
    run = engine.run(hosted(num_inference_steps=3))
    assert run.environment["provider"]["provider"] == "nscale"
    assert any(note.startswith("num_inference_steps: not passed") for note in run.notes)


def test_a_picture_that_is_fetched_after_the_answer(engine, router):
    router.mapping = {"replicate": "text-to-image"}
    run = engine.run(hosted(model_id=f"{HOSTED}@replicate"))
    assert run.status == "ok", run.error
    assert engine.pictures.get(run.image_sha256).getpixel((0, 0)) == Image.open(
        io.BytesIO(png("made"))).getpixel((0, 0))


def test_what_the_provider_took_is_not_sent_again(engine, router):
    router.mapping = {"wavespeed": "text-to-image"}
    run = engine.run(hosted(model_id=f"{HOSTED}@wavespeed"))
    assert "(429)" in run.error and len(router.asked) == 1


@pytest.mark.parametrize(("mapping", "model_id", "words"), [
    ({}, HOSTED, "lists no provider"),
    ({"nscale": "text-to-image"}, f"{HOSTED}@replicate", "not supported by provider replicate"),
    ({"nscale": "text-to-video"}, f"{HOSTED}@nscale", "not supported for task text-to-image"),
])
def test_a_model_that_nobody_runs_is_an_error(engine, router, mapping, model_id, words):
    router.mapping = mapping
    assert words in engine.run(hosted(model_id=model_id)).error
    assert not router.asked


def test_a_token_that_would_go_to_the_provider_itself_is_not_used(engine, router, monkeypatch):
    router.mapping = {"nscale": "text-to-image"}
    monkeypatch.setenv("HF_TOKEN", "secret")
    run = engine.run(hosted(model_id=f"{HOSTED}@nscale"))
    assert "HF_TOKEN" in run.error and "secret" not in run.error and not router.asked


# --- what goes wrong


@pytest.mark.parametrize(("reply", "words"), [
    (Reply(401, b'{"error": "Invalid"}'), ("(401)", "Invalid", "hf auth login")),
    (Reply(402, b"no credit"), ("(402)", "no credit")),
    (Reply(403, b"forbidden"), ("(403)", "Inference Providers")),
    (Reply(404, b"Not Found"), ("(404)", "o/n")),
    (Reply(422, b'{"error": "width must be 512"}'), ("(422)", "width must be 512")),
    (Reply(500, b"oh"), ("(500)", "try again later")),
    (Reply(503, b"loading"), ("(503)", "loading")),
    (Reply(429, b"", {"Retry-After": "999"}), ("(429)", "999 s")),
    (Reply(200, b"<html>no</html>", {"content-type": "text/html"}),
     ("sent no picture but text/html", "<html>no</html>")),
    (Reply(200, png()[:70]), ("broken picture",)),
    (Reply(200, b"GIF89a" + bytes(60)), ("picture",)),
])
def test_an_error_is_told_for_its_cell_and_the_others_go_on(engine, provider, reply, words):
    provider.replies.append(reply)
    runs = engine.compare(grid(0, 1, 2), shared=True)
    failed, = (run for run in runs if run.status == "failed")
    assert [run.status for run in runs].count("ok") == 2
    for word in (*words, "127.0.0.1"):
        assert word in failed.error
    assert "hf_of_tests" not in failed.error


def test_an_answer_that_is_too_large_is_not_read(engine, provider, monkeypatch):
    monkeypatch.setattr("pipelines.hosted.answer.MAX_BYTES", 100_000)
    provider.replies.append(Reply(200, bytes(300_000)))
    assert "larger than" in engine.run(hosted()).error
    many = io.BytesIO()
    Image.new("1", (5001, 5001)).save(many, "PNG")
    provider.replies.append(Reply(200, many.getvalue()))
    assert "5001 x 5001 px, accepted up to 25 million" in engine.run(hosted()).error


def test_a_provider_that_is_busy_is_asked_again_when_it_says(engine, provider):
    provider.replies.extend([Reply(429, b"", {"Retry-After": "0"}),
                             Reply(503, b"", {"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}),
                             Reply(429, b"", {"Retry-After": "1"})])
    run = engine.run(hosted())
    assert run.status == "ok" and len(provider.asked) == 4
    assert "waited 1 s, because the provider asked for it" in run.notes


def test_a_provider_that_stays_busy_is_given_up(engine, provider):
    provider.replies.extend([Reply(429, b"", {"Retry-After": "0"})] * 20)
    assert "(429)" in engine.run(hosted()).error and len(provider.asked) == 5


def test_an_answer_that_takes_too_long_is_an_error(engine, provider, monkeypatch):
    monkeypatch.setenv("CONTACT_SHEET_INFERENCE_TIMEOUT", "0.2")
    go = threading.Event()
    provider.replies.append(Reply(go=go))
    assert "did not answer within 0.2 s" in engine.run(hosted()).error
    go.set()
    assert len(provider.asked) == 1  # it may be charged, so it is not sent again


def test_offline_nothing_is_sent(engine, provider, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in engine.run(hosted()).error
    assert not provider.asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    provider.close()
    assert "no connection to 127.0.0.1" in engine.run(hosted()).error


# --- several, cancel, the log


def test_a_few_requests_are_under_way_at_once(engine, provider):
    go = threading.Event()
    provider.replies.extend([Reply(go=go)] * 4)
    done = []
    thread = threading.Thread(target=lambda: done.extend(
        engine.compare(grid(*range(7)), shared=True)))
    thread.start()
    until(lambda: len(provider.asked) == 4)
    go.set()
    thread.join(WAIT)
    assert [run.status for run in done] == ["ok"] * 7 and provider.most_at_once <= 4
    assert len({run.image_sha256 for run in done}) == 7


@pytest.mark.parametrize("reply", [Reply(go=threading.Event()),
                                   Reply(429, b"", {"Retry-After": "100"})])
def test_a_cancel_acts_while_an_answer_is_awaited(engine, provider, reply):
    provider.replies.extend([reply] * 4)

    def check():
        if provider.asked:
            raise Cancelled("stopped by the user")

    started = time.monotonic()
    runs = engine.compare(grid(*range(6)), shared=True, check=check)
    assert time.monotonic() - started < WAIT / 2
    assert runs == [None] * 6 and 1 <= len(provider.asked) <= 4
    if reply.go:
        reply.go.set()


def test_what_is_under_way_comes_to_its_end_where_no_further_is_wanted(engine, provider):
    go = threading.Event()
    provider.replies.extend([Reply(go=go)] * 4)

    def check():
        if len(provider.asked) >= 4:
            go.set()
            raise NoFurther("stopped by the user")

    runs = engine.compare(grid(*range(8)), shared=True, check=check)
    assert [run is not None for run in runs].count(True) == len(provider.asked) < 8


def test_nothing_is_paid_twice(engine, provider):
    """A resume asks for what failed, another comparison and a single picture's for nothing."""
    provider.replies.append(Reply(500, b"oh"))
    comparison = grid(0, 1, 2)
    runs = engine.compare(comparison, comparison_id="paid")
    assert [run.status for run in runs] == ["failed", "ok", "ok"]
    again = engine.compare(comparison, comparison_id="paid")
    assert [run.status for run in again] == ["ok"] * 3 and len(provider.asked) == 4
    assert engine.in_log(comparison) == [0, 1, 2]
    other = engine.compare(comparison)
    assert all(run.reused_from for run in other) and len(provider.asked) == 4
    engine.run(hosted(seed=9))
    assert engine.compare(grid(9))[0].reused_from and len(provider.asked) == 5
    engine.compare(grid(9), fresh=True)
    assert len(provider.asked) == 6


# --- what is said of such pictures


def test_they_are_in_no_statement_on_noise_convergence_or_time(engine, provider, monkeypatch):
    monkeypatch.setattr(measuring, "CONVERGED_BY", ("dpmpp_2m_karras", {}, 8))
    base = RunRequest(prompt="a red car", num_inference_steps=2)
    comparison = Comparison(base, (Axis("model_id", ("postcards", HOSTED)), Axis("seed", (0,))))
    runs = engine.compare(comparison)
    here, there = runs
    assert [run.status for run in runs] == ["ok", "ok"], there.error
    sent = len(provider.asked)
    assert len(methods(comparison, runs)) == 1
    distances = measuring.measure(engine, comparison, runs, "converged")
    assert distances[0].rms_latents is not None and distances[1] is None
    measuring.measure_timings(engine, runs, 2)
    assert [summary is None for summary in measuring.timings(engine, runs)] == [False, True]
    assert "initial noise unknown in 1 cell of a provider" in subtitle(comparison, runs)
    assert "in every cell" not in subtitle(comparison, runs)
    assert "scheduler the model's own" in subtitle(comparison, runs)
    alone = Comparison(hosted(), (Axis("seed", (0, 1)),))
    assert "guidance_scale the model's own" in subtitle(alone, [there, None])
    for ask in (lambda: measuring.measure(engine, comparison, [None, there], "converged"),
                lambda: measuring.measure_timings(engine, [None, there], 2)):
        with pytest.raises(RequestError, match="a provider made all these pictures"):
            ask()
    to_cell = measuring.measure(engine, comparison, runs, "model_id=postcards")
    assert to_cell[1].psnr is not None and to_cell[1].rms_latents is None
    assert len(provider.asked) == sent
    assert here.noise_sha256


def test_a_study_takes_none(provider):
    with pytest.raises(RequestError, match="a study compares methods from equal noise"):
        Study(hosted(prompt=""), (Axis("guidance_scale", (1.0, 3.0)),), (Prompt("a car"),), (0,))
    assert not provider.asked


def test_who_gets_what_is_said(monkeypatch):
    requests = [hosted(), hosted(model_id=f"{HOSTED}@fal-ai", task="image-to-image",
                                 image="0" * 64), RunRequest(prompt="x")]
    first, second = what_leaves(requests)
    assert "the prompt leaves this machine" in first and "Hugging Face" in first
    assert "prompt and picture leave this machine" in second and "fal-ai" in second


# --- command line and pages


def test_the_command_line_says_what_leaves_and_sends_nothing_that_a_file_names(run, provider):
    code, out, err = run("generate", "a red car", "--model-id", HOSTED, "--seed", "3")
    assert code == 0 and "by a provider, initial noise unknown" in out, err
    assert "the prompt leaves this machine. It is sent to 127.0.0.1" in err
    assert run("models")[1].count("hf-inference") == 0
    sent = len(provider.asked)
    for arguments in (["generate", "--from", "out.png"], ["reproduce", "out.png"]):
        code, _, err = run(*arguments)
        assert code == 2 and HOSTED in err and "name it" in err
    assert len(provider.asked) == sent
    code, _, err = run("generate", "--from", "out.png", "--model-id", HOSTED, "--seed", "4")
    assert code == 0 and provider.asked[-1].body["parameters"]["seed"] == 4, err


def test_a_comparison_of_models_here_and_there_in_one_command(run, provider):
    code, out, err = run("compare", "a red car", "--num-inference-steps", "2", "--axis",
                         f"model_id=postcards,{HOSTED}", "--json", "--measure", "2")
    cells = json.loads(out)["cells"]
    assert code == 0 and [cell["status"] for cell in cells] == ["ok", "ok"], err
    assert [cell["measured"] is None for cell in cells] == [False, True]
    assert cells[1]["noise_sha256"] is None and "127.0.0.1" in err


def test_generate_takes_such_a_model_and_warns(home, provider):
    app = page("generate", {"generate.model_id": HOSTED, "generate.prompt": "a red car"})
    assert "the prompt leaves this machine" in html(app) and not app.exception
    assert "1 picture · 1 by a provider, time and cost not known" in app.caption[0].value
    assert not provider.asked
    next(b for b in app.button if b.key == "generate.go").click().run()
    app = finish(app)
    assert len(provider.asked) == 1 and not app.exception
    assert "There and back" in html(app) and "0 steps" not in html(app)
    assert state.engine().run_log.runs()[0].status == "ok"
    app.switch_page("views/runs.py").run()
    assert not app.exception


def test_compare_says_that_noise_is_unknown(home, provider):
    engine = state.engine()
    engine.compare(Comparison(RunRequest(prompt="a red car", num_inference_steps=2), (
        Axis("model_id", ("postcards", HOSTED)),)), comparison_id="mixed")
    app = page("compare", comparison="mixed")
    assert "Initial noise unknown in 1 of 2 finished cells" in html(app) and not app.exception


def test_in_painting_says_that_no_provider_does_it(home, provider, picture):
    with pytest.raises(RequestError, match="accepted for hf-inference:o/n"):
        state.engine().check(hosted(task="inpainting", image=picture, mask_image=picture))
    assert not provider.asked

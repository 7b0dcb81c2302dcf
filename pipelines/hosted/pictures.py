"""Pictures that a provider makes: each a request of its own, a few at the same time.

huggingface_hub's InferenceClient builds a request and reads its answer, whatever the provider. What
was sent may be charged, so nothing is sent twice but where the provider refused it for now, and an
answer that has come is given back although somebody cancels.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import InferenceClient, get_token
from PIL import Image

from pipelines.colour import to_srgb
from pipelines.errors import Cancelled, NoFurther, ProviderError, RequestError, first_line
from pipelines.hardware import HOSTED_DEVICE
from pipelines.hosted.answer import COST, TIME, Answer, Gate, timeout, watched
from pipelines.hosted.wording import MAX_WAIT, pause_of, reworded
from pipelines.inpainting.pictures_in import FORMATS, check_size
from pipelines.making import Images, OnResult
from pipelines.models.hosted import (
    AUTO,
    HF_INFERENCE,
    METHODS,
    NOT_PASSED,
    HostedModel,
    hosted_model,
)
from pipelines.models.identity import model_content
from pipelines.models.info import ModelInfo
from pipelines.painting.result import RunResult, Step
from pipelines.painting.timing import Timings
from pipelines.pixels import eight_bits, flat, input_notes
from pipelines.request import RunRequest
from pipelines.schedulers import scheduler_info

AT_ONCE = 4  # requests under way
MAX_TRIES = 5  # of a picture, where the provider is busy
POLL_SECONDS = 0.1
TOKENS = "hf_"  # how those of the Hub begin


@dataclass(frozen=True)
class Provided:
    """A hosted model in the place of a loaded one: what the log says of who computed."""

    info: ModelInfo
    content: str
    device: str = HOSTED_DEVICE
    dtype: str = "unknown"
    lora_contents: tuple[str, ...] = ()

    @classmethod
    def of(cls, info: ModelInfo) -> Provided:
        return cls(info, model_content(info))


def make_hosted_pictures(
    model: Provided,
    requests: Sequence[RunRequest],
    images_of: Callable[[RunRequest], Images],
    on_result: OnResult,
    on_step: Callable[[int, Step], None] | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Have the pictures of resolved requests made; the arguments are those of `make_pictures`.

    A cancel gives up what is under way, which may be charged all the same; where `check` raises
    NoFurther, what is under way comes to its end, and nothing else is sent.
    """
    if check:
        check()
    hosted, gate = hosted_model(model.info.model_id), Gate()
    todo, done = deque(range(len(requests))), queue.SimpleQueue()
    ending: list[NoFurther] = []

    def work() -> None:
        while True:
            try:
                number = todo.popleft()
            except IndexError:
                return
            done.put((number, _outcome(hosted, requests[number], images_of, gate)))

    def ended(number: int, outcome: RunResult | Exception) -> None:
        if isinstance(outcome, Cancelled):
            return
        try:
            if on_step and isinstance(outcome, RunResult):
                on_step(number, Step(1, 1, lambda: None))
        finally:
            on_result(number, outcome)

    # Not a pool: its threads would be waited for when the program ends.
    workers = [threading.Thread(target=work, daemon=True)
               for _ in range(min(AT_ONCE, len(requests)))]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers) or not done.empty():
            with contextlib.suppress(queue.Empty):
                ended(*done.get(timeout=POLL_SECONDS))
            try:
                if check:
                    check()
            except NoFurther as stop:
                ending.append(stop)
                gate.closing.set()
    finally:
        gate.closing.set()
        gate.ended.set()
        while not done.empty():  # they are paid for
            number, outcome = done.get()
            if isinstance(outcome, RunResult):
                on_result(number, outcome)
    if ending:
        raise ending[0]


def _outcome(
    model: HostedModel, request: RunRequest, images_of: Callable[[RunRequest], Images],
    gate: Gate,
) -> RunResult | Exception:
    try:
        return _made(model, request, images_of(request), gate)
    except Exception as error:
        return error


def _made(model: HostedModel, request: RunRequest, images: Images, gate: Gate) -> RunResult:
    """The picture of one request; raises ProviderError, RequestError or Cancelled."""
    client = InferenceClient(model=model.address or None, token=_token(model),
                             provider=None if model.address else model.provider)
    with _input_file(images) as picture:
        image, answer, seconds, waited = _asked(client, model, request, picture, gate)
    image, notes = _plain(model, image)
    told = answer.told
    if waited:
        notes.append(f"waited {waited:.0f} s, because the provider asked for it")
    dropped = NOT_PASSED.get(told["provider"], ())
    notes += [f"{name}: not passed, huggingface_hub drops it for {told['provider']}"
              for name in dropped if getattr(request, name) is not None]
    if request.task == "image-to-image":
        notes.append("seed: not passed, image-to-image takes none of a provider")
    untold = [what for what, names in (("cost", COST), ("computing time", TIME))
              if not any(names.search(name) for name in told["headers"])]
    if untold:
        notes.append(f"not told by the provider: {' and '.join(untold)}")
    return RunResult(
        request=request.changed(width=image.width, height=image.height),
        image=image,
        timings=Timings(None, None, None, seconds * 1000),
        nfe=None,
        denoiser_rows=None,
        noise_sha256=None,
        peak_memory_bytes=None,
        notes=(f"{told['provider']} made it: the initial noise is unknown, the weights may change "
               "at any time, and the time is the whole way there and back",
               *notes, *input_notes(images)),
        told=told,
    )


def _asked(
    client: InferenceClient, model: HostedModel, request: RunRequest, picture: Path | None,
    gate: Gate,
) -> tuple[Image.Image, Answer, float, float]:
    """A picture as the provider sent it, what was told beside it, the seconds that it took, and
    those that were waited before."""
    fields = _fields(request)
    method = getattr(client, METHODS[request.task])
    waited, tries = 0.0, 0
    while True:
        tries += 1
        gate.pass_through()
        started = time.monotonic()
        answer = Answer(gate, started + timeout())
        client.timeout = answer.left()
        try:
            with watched(answer):
                image = method(**fields, **({"image": picture} if picture else {}),
                               **({} if model.address else {"model": model.repository}))
            answer.told["provider"] = _provider(model, answer)
            return image, answer, time.monotonic() - started, waited
        except Exception as error:
            pause = pause_of(error, answer)
            if pause is None or tries == MAX_TRIES or waited + pause > MAX_WAIT:
                raise reworded(error, model, answer, waited) from error
            waited += pause
            gate.not_before = max(gate.not_before, time.monotonic() + pause)


def _fields(request: RunRequest) -> dict[str, Any]:
    """The request's fields as the client's arguments."""
    fields: dict[str, Any] = {
        "prompt": request.prompt, "negative_prompt": request.negative_prompt or None,
        "num_inference_steps": request.num_inference_steps,
        "guidance_scale": request.guidance_scale}
    size = {"height": request.height, "width": request.width}
    if request.task == "image-to-image":
        return fields | ({"target_size": size} if request.height else {})
    if request.scheduler != "default":
        fields["scheduler"] = scheduler_info(request.scheduler).class_name
    return fields | size | {"seed": request.seed}


@contextlib.contextmanager
def _input_file(images: Images) -> Iterator[Path | None]:
    """The picture to start from as a file, with nothing in it but its pixels."""
    if "image" not in images:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="contact-sheet-") as folder:
        path = Path(folder, "image.png")
        image = flat(images["image"]).copy()
        image.info = {}
        image.save(path)
        yield path


def _token(model: HostedModel) -> str | None:
    """The Hub's token. One that does not begin as the Hub's would go to the provider itself."""
    token = get_token()
    if token is None and not model.address and model.provider not in (AUTO, HF_INFERENCE):
        raise RequestError(f"no token of the Hub is stored, which {model.provider} needs: run "
                           "'hf auth login', or set HF_TOKEN")
    if token and not token.startswith(TOKENS) and not model.address:
        raise RequestError(f"HF_TOKEN: received a token that does not begin with {TOKENS!r}, so it "
                           "is no token of the Hub; accepted one of those")
    return token


def _provider(model: HostedModel, answer: Answer) -> str:
    """Who was really asked: the router's address begins with the provider's name."""
    if model.provider != AUTO and not model.address:
        return model.provider
    url = httpx2.URL(answer.told["address"])
    return url.host if model.address else url.path.strip("/").partition("/")[0] or url.host


def _plain(model: HostedModel, image: Image.Image) -> tuple[Image.Image, list[str]]:
    """A picture that a provider sent, in RGB, and what was changed; raises ProviderError."""
    notes = []
    try:
        if image.format not in FORMATS:
            raise RequestError(f"it is of the format {image.format}, accepted {', '.join(FORMATS)}")
        check_size(*image.size, "it")
        image.load()
        made = to_srgb(eight_bits(image))
        if "transparency" in made.info or "A" in made.mode:
            notes.append("what was transparent became white")
        made = flat(made)
    except RequestError as error:
        raise ProviderError(f"{model.name} sent a picture that is not taken: {error}"
                            ) from error
    except Exception as error:  # a broken file may raise anything in a decoder
        raise ProviderError(f"{model.name} sent a broken picture ({first_line(error)})"
                            ) from error
    made.info = {}
    return made, notes

"""Models that a provider runs elsewhere: what their API takes of a request. Nothing is sent here.

The id is 'hf-inference:OWNER/NAME[@PROVIDER]', with a provider as huggingface_hub names it; left
out, it is the first that the Hub lists for the account. What the API takes is read from the
signatures of huggingface_hub's InferenceClient.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.errors import PipelineError, RequestError, UnknownModelError
from pipelines.models.info import ModelInfo
from pipelines.names import HOSTED, is_hosted
from pipelines.notation import number_text, shown
from pipelines.request import RunRequest

# A server that speaks HF Inference's API, such as an Inference Endpoint, in place of Hugging Face's
# router; '{model}' in it becomes OWNER/NAME.
ADDRESS = "CONTACT_SHEET_INFERENCE_URL"
METHODS = {"text-to-image": "text_to_image", "image-to-image": "image_to_image"}
AUTO, HF_INFERENCE = "auto", "hf-inference"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What huggingface_hub's signatures have, and its provider gets none of.
NOT_PASSED = {"nscale": ("num_inference_steps",)}


@dataclass(frozen=True)
class HostedModel:
    """A model's `repository` on the Hub, who runs it, and the `address` that is asked, '' for
    Hugging Face's router."""

    repository: str
    provider: str
    address: str = ""

    @property
    def name(self) -> str:
        """Who answers, as far as it is known before."""
        if self.address:
            return urlsplit(self.address).netloc
        return "Hugging Face" if self.provider in (AUTO, HF_INFERENCE) else self.provider

    @property
    def receiver(self) -> str:
        """Who gets what a request holds."""
        if self.address:
            return f"{self.name}, as {ADDRESS} says"
        if self.provider == AUTO:
            return ("Hugging Face, and the provider that it lists first for this model and your "
                    "account")
        if self.provider == HF_INFERENCE:
            return "Hugging Face (hf-inference)"
        return f"the provider {self.provider}, by way of Hugging Face"


def hosted_model(model_id: str) -> HostedModel:
    """A hosted model by its id; raises UnknownModelError, or RequestError for an address that
    cannot be used."""
    parts = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w-]+))?", model_id.removeprefix(HOSTED))
    if parts is None:
        raise UnknownModelError(f"model_id: received {shown(model_id)}, accepted for hosted models "
                                f"{HOSTED}OWNER/NAME or {HOSTED}OWNER/NAME@PROVIDER")
    repository, provider = parts[1], parts[2] or AUTO
    if provider != AUTO and provider not in _tasks():
        raise UnknownModelError(f"model_id: received the provider {provider!r}, accepted those of "
                                f"huggingface_hub that make pictures: {', '.join(_tasks())}; or "
                                "none, for the first that the Hub lists")
    address = os.environ.get(ADDRESS, "").strip()
    if not address:
        return HostedModel(repository, provider)
    if provider not in (AUTO, HF_INFERENCE):
        raise RequestError(f"model_id: received the provider {provider!r} beside {ADDRESS}, whose "
                           "server runs the model; accepted no provider")
    parts = urlsplit(address)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        raise RequestError(f"{ADDRESS}: received {shown(address)}, accepted an https address, or "
                           "http on this machine")
    return HostedModel(repository, HF_INFERENCE, address.replace("{model}", repository))


@functools.cache
def _tasks() -> dict[str, tuple[str, ...]]:
    """The providers that make pictures -> of what."""
    from huggingface_hub.inference._providers import PROVIDERS

    tasks = {name: tuple(task for task in METHODS if task in of) for name, of in PROVIDERS.items()}
    return {name: of for name, of in tasks.items() if of}


def describe_hosted(
    model_id: str, revision: str | None = None, variant: str | None = None
) -> ModelInfo:
    """What is known of a hosted model without asking anybody; raises UnknownModelError or
    RequestError."""
    model = hosted_model(model_id)
    for name, value in (("revision", revision), ("variant", variant)):
        if value:
            raise RequestError(f"{name}: received {shown(value)}, a provider takes none; leave it "
                               "out")
    calls = {task: _parameters(task, model.provider)
             for task in _tasks().get(model.provider, METHODS)}
    return ModelInfo(
        model_id=model_id,
        folder=Path(os.devnull),
        source="hosted",
        pipeline_class="InferenceClient",
        task_classes=dict.fromkeys(calls, "InferenceClient"),
        height=None,
        width=None,
        size_multiple=1,
        size_bytes=0,
        weight_files=(),
        variant=None,
        prediction_type="unknown",
        default_scheduler="default",
        original_scheduler_config={},
        index={},
        num_inference_steps=None,
        guidance_scale=None,
        guidance_parameter="guidance_scale",
        distilled=False,
        calls=calls,
        address=model.address,
    )


def _parameters(task: str, provider: str) -> Mapping[str, Any]:
    """The fields of a request that a provider is passed -> their default, as `call_parameters`."""
    from huggingface_hub import InferenceClient

    signature = inspect.signature(getattr(InferenceClient, METHODS[task])).parameters
    fields = {name: parameter.default for name, parameter in signature.items()
              if name in RunRequest.model_fields and name not in ("image", "prompt")}
    if "target_size" in signature:
        fields |= {"height": None, "width": None}
    if provider != HF_INFERENCE:  # only there it is the name of a class of diffusers
        fields.pop("scheduler", None)
    for name in NOT_PASSED.get(provider, ()):
        fields.pop(name, None)
    return {"prompt": inspect.Parameter.empty, **fields}


def check_hosted(request: RunRequest, info: ModelInfo) -> None:
    """Raise RequestError where a request sets what its provider is not passed."""
    call = info.calls.get(request.task)
    if call is None:
        raise RequestError(f"task: received {request.task!r}, accepted for {info.model_id} "
                           f"(InferenceClient): {', '.join(info.tasks)}")
    taken = {"model_id", "task"} | {"image", "seed"} | call.keys()
    if refused := [name for name in request.not_default if name not in taken]:
        received = "; ".join(f"{name}: received {_shown(getattr(request, name))}"
                             for name in refused)
        hint = (f"; {HOSTED}OWNER/NAME@{HF_INFERENCE} takes a scheduler for text-to-image"
                if "scheduler" in refused else "")
        raise RequestError(f"{received}; leave it out: {info.model_id} is passed nothing but "
                           f"{', '.join(call)}{hint}")
    fitting = [scheduler.key for scheduler in info.schedulers]
    if request.scheduler not in ("default", *fitting):
        raise RequestError(f"scheduler: received {request.scheduler!r}, accepted for "
                           f"{info.model_id}, which is passed the name of a class alone: default, "
                           f"{', '.join(fitting)}")
    if (request.height is None) != (request.width is None):
        given, missing = (("width", "height") if request.height is None else ("height", "width"))
        raise RequestError(f"{given}: received {getattr(request, given)} without {missing}, "
                           f"accepted for {info.model_id} both, or neither")


def _shown(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else shown(value)


def what_leaves(requests: Iterable[RunRequest]) -> list[str]:
    """For each hosted model of some requests a sentence on what leaves this machine, to whom; none
    for a model that cannot be asked, whose run says why."""
    pictures: dict[str, bool] = {}
    for request in requests:
        if is_hosted(request.model_id):
            pictures[request.model_id] = (pictures.get(request.model_id, False)
                                          or bool(request.image))
    sentences = []
    for model_id, picture in pictures.items():
        with suppress(PipelineError):
            what = "prompt and picture leave" if picture else "the prompt leaves"
            sentences.append(f"{model_id}: {what} this machine. It is sent to "
                             f"{hosted_model(model_id).receiver}; each picture may be charged.")
    return sentences

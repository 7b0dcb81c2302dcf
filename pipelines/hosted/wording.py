"""What goes wrong with a provider's answer, in sentences that say what to do."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2
from huggingface_hub.errors import (
    HfHubHTTPError,
    InferenceTimeoutError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from PIL import Image

from pipelines.errors import PipelineError, ProviderError, first_line
from pipelines.hosted.answer import BEGINNING, TIMEOUT, Answer, timeout
from pipelines.models.hosted import HostedModel

MAX_WAIT = 120.0  # seconds that a picture waits in all where the provider asks for it
BUSY = (429, 503)  # answers that mean: not now


def pause_of(error: Exception, answer: Answer) -> float | None:
    """Seconds after which the provider wants to be asked again; None where it does not say so, or
    has taken the request already and refused a question about it."""
    if not isinstance(error, HfHubHTTPError) or error.response.status_code not in BUSY:
        return None
    if answer.told and error.response.request.method != "POST":
        return None
    text = error.response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    with contextlib.suppress(ValueError, TypeError):  # a date, or nothing
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    return None


def reworded(
    error: Exception, model: HostedModel, answer: Answer, waited: float
) -> Exception:
    """What a request raised, in a sentence that says what to do."""
    if isinstance(error, OfflineModeIsEnabled):
        return ProviderError(f"HF_HUB_OFFLINE is set: nothing was sent to {model.name}; unset "
                             "it, or choose a model that is on this machine")
    if isinstance(error, RepositoryNotFoundError):
        return ProviderError(f"{model.repository} is not on the Hub, or it is private and the "
                             "token may not read it")
    if isinstance(error, HfHubHTTPError):
        return ProviderError(_status_text(error.response, model, waited))
    if isinstance(error, (InferenceTimeoutError, httpx2.TimeoutException, TimeoutError)):
        return ProviderError(f"{model.name} did not answer within {timeout():g} s; it may "
                             f"charge for the picture all the same; {TIMEOUT} gives it more time")
    if isinstance(error, httpx2.TransportError):
        return ProviderError(f"no connection to {model.name} ({first_line(error)})")
    if isinstance(error, Image.DecompressionBombError):
        return ProviderError(f"{model.name} sent a picture with more pixels than are taken")
    if isinstance(error, Image.UnidentifiedImageError):
        kind = answer.told.get("content_type") or "no content type"
        return ProviderError(f"{model.name} sent no picture but {kind}: "
                             f"{_text(answer.begins)}")
    if isinstance(error, ProviderError):
        return ProviderError(f"{model.name}: {error}")
    if isinstance(error, PipelineError):
        return error
    if answer.told:  # an answer without what huggingface_hub looks for in it
        return ProviderError(f"{model.name} sent an answer that cannot be read "
                             f"({type(error).__name__}: {first_line(error)})")
    if isinstance(error, StopIteration):
        return ProviderError(f"{model.repository}: the Hub lists no provider for it")
    if isinstance(error, ValueError):  # the model is none for this task, or not this provider's
        return ProviderError(first_line(error))
    return error


def _status_text(response: httpx2.Response, model: HostedModel, waited: float) -> str:
    code, receiver = response.status_code, model.name
    said = f": {text}" if (text := _text(response.content[:BEGINNING])) else ""
    if code == 401:
        return (f"{receiver} refused the token, or needs one (401){said}; log in with 'hf auth "
                "login', or set HF_TOKEN")
    if code == 402:
        return f"{receiver} wants to be paid (402){said}"
    if code == 403:
        return (f"{receiver} does not allow this (403){said}; the token needs the right to call "
                "Inference Providers, and a gated model its conditions accepted")
    if code == 404:
        return (f"{receiver} has no {model.repository} (404){said}; its page on the Hub lists the "
                "providers that run it")
    if code in (400, 422):
        return f"{receiver} does not take this request ({code}){said}"
    if code in BUSY:
        after = response.headers.get("Retry-After")
        again = f"it asks to be left alone for {after[:40]} s" if after else "try again later"
        before = f" after {waited:.0f} s of waiting" if waited else ""
        return (f"{receiver} has too many requests ({code}){before}{said}; {again}; waited for are "
                f"up to {MAX_WAIT:.0f} s")
    if code >= 500:
        return f"{receiver} has trouble of its own ({code}){said}; try again later"
    return f"{receiver} answered {code}{said}"


def _text(content: bytes) -> str:
    """The start of an answer as one line."""
    text = content.decode("utf-8", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

"""What huggingface_hub raises, in sentences that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipelines.errors import GatedError, HubError, OfflineError, PipelineError

if TYPE_CHECKING:
    from pipelines.hub.client import Hub


@contextlib.contextmanager
def reworded(hub: Hub, model_id: str = "", revision: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into errors that say what to do."""
    import httpx2
    from huggingface_hub import errors

    # What may be raised, the more special first; what is raised instead; its message.
    table = (
        (errors.OfflineModeIsEnabled, OfflineError, lambda _:
         "HF_HUB_OFFLINE is set: the Hub is not asked, only what is on this machine is shown"),
        (errors.GatedRepoError, GatedError, lambda _: gated_text(hub, model_id)),
        (errors.RevisionNotFoundError, HubError, lambda _:
         f"revision: {model_id} has no {revision!r}"),
        (errors.RemoteEntryNotFoundError, HubError, lambda error:
         f"{model_id} has no such file: {_path_of(error)}"),
        (errors.RepositoryNotFoundError, HubError, lambda _:
         f"{model_id or 'this model'} is not on {host(hub)}"
         + ("" if hub.has_token() else ", or it is private and no token is set")),
        (errors.HFValidationError, HubError, lambda _:
         f"model_id: received {model_id!r}, accepted a name such as organisation/name"),
        (errors.HfHubHTTPError, HubError, lambda error: _status_text(hub, error.response)),
        (httpx2.TimeoutException, OfflineError, lambda _: f"{host(hub)} does not answer in time"),
        (httpx2.TransportError, OfflineError, lambda error:
         f"no connection to {host(hub)} ({error})"),
        ((httpx2.HTTPError, ValueError, KeyError), HubError, lambda error:
         f"{host(hub)} sent an answer that cannot be read: {error}"),
    )
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        for classes, replacement, text in table:
            if isinstance(error, classes):
                raise replacement(text(error)) from error
        raise


def host(hub: Hub) -> str:
    return urlsplit(hub.endpoint).netloc


def gated_text(hub: Hub, model_id: str) -> str:
    page = hub.url(model_id)
    if hub.has_token():
        return (f"{model_id} is gated: open {page} with the account of your token, accept its "
                "conditions, and come back once access is granted")
    return (f"{model_id} is gated: log in at {page}, accept its conditions, then let this machine "
            "know your token: run 'hf auth login', or set HF_TOKEN, and start again")


def _path_of(error: Any) -> str:
    return urlsplit(str(error.response.url)).path.split("/resolve/")[-1].partition("/")[2]


def _status_text(hub: Hub, answer: Any) -> str:
    code = answer.status_code
    if code == 401:
        return (f"{host(hub)} refused the token (401): log in again with 'hf auth login', or unset "
                "HF_TOKEN")
    if code == 403:
        return f"{host(hub)} does not allow this (403): the token lacks the right to read it"
    if code == 429:
        wait = answer.headers.get("Retry-After", "")
        after = f" in {wait} s" if wait.isdigit() else " in a few minutes"
        return f"{host(hub)} has had too many requests from here (429): try again{after}"
    if code >= 500:
        return f"{host(hub)} has trouble of its own ({code}): try again later"
    return f"{host(hub)} answered {code} {answer.reason_phrase}"

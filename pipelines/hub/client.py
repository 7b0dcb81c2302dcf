"""The Hugging Face Hub: search, what a model is, its card and pictures; nothing is stored."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from pipelines.errors import GatedError, HubError, OfflineError, PipelineError, RefusedError
from pipelines.hub.plan import (
    CARD,
    INDEX,
    DownloadPlan,
    HubFile,
    make_plan,
    pipeline_obstacle,
)
from pipelines.inpainting.clicks import KINDS as SEGMENTERS
from pipelines.models.signatures import connected_class

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

PAGE = 20
TIMEOUT = 10.0  # seconds without a byte
PROBE_TIMEOUT, PROBE_EVERY = 3.0, 30.0  # seconds
MAX_REQUESTS = 5  # of the Hub's pages to fill one page of ours, where a filter is our own
MAX_TEXT, MAX_PICTURE = 2_000_000, 20_000_000  # bytes
MAX_REMEMBERED, MAX_REMEMBERED_PICTURES = 2000, 200
PICTURE_SIDE = 1024  # pixels
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SORTS = {"trending": "trendingScore", "downloads": "downloads", "likes": "likes",
         "date": "lastModified"}  # fmt: skip
EXPAND = ("author", "cardData", "config", "createdAt", "downloads", "gated", "lastModified",
          "library_name", "likes", "pipeline_tag", "private", "sha", "siblings", "tags",
          "trendingScore")  # fmt: skip


@dataclass(frozen=True)
class HubQuery:
    """What to look for; empty fields do not filter. `max_bytes` is about what would be fetched."""

    text: str = ""
    task: str | None = None
    library: str | None = "diffusers"
    author: str = ""
    licence: str | None = None
    gated: bool | None = None
    base_model: str = ""
    max_bytes: int | None = None
    sort: str = "trending"


@dataclass(frozen=True)
class HubModel:
    """A model, on the Hub or on this machine. `source`: Hub, bundled, folder or Hub cache.

    `size_bytes`: of the files that would be fetched, or that lie here; `gated`: auto or manual;
    `obstacle`: why it cannot be opened here; `here`: no, partly or yes; `updated`: an ISO date.
    """

    model_id: str
    source: str
    task: str | None = None
    pipeline_class: str | None = None
    kind: str | None = None
    size_bytes: int | None = None
    licence: str | None = None
    gated: str | None = None
    safetensors: bool = True
    obstacle: str | None = None
    here: str = "no"
    downloads: int | None = None
    likes: int | None = None
    updated: str | None = None
    library: str | None = None
    base_models: tuple[str, ...] = ()
    adapter: bool = False
    commit: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class HubDetails:
    """One model with its files, the content of its model_index.json, and the plan for it; `card` is
    the head of its README, `folders` where files and card lie, empty for a model on the Hub."""

    model: HubModel
    files: tuple[HubFile, ...]
    index: dict[str, Any] | None
    plan: DownloadPlan | None
    card: dict[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    @property
    def prior(self) -> str | None:
        """The other repository that a two-stage pipeline needs, such as Kandinsky's prior."""
        named = self.card.get("prior")
        named = named[0] if isinstance(named, list) and named else named
        wanted = self.model.pipeline_class and connected_class(self.model.pipeline_class)
        return named if wanted and isinstance(named, str) else None


class Hub:
    """A Hub by its address; `token` None is the one that huggingface_hub knows, False is none."""

    def __init__(
        self,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        token: str | bool | None = None,
    ) -> None:
        from huggingface_hub import constants

        endpoint = endpoint or os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
        self.endpoint = endpoint.rstrip("/")
        self.cache_dir = Path(cache_dir or constants.HF_HUB_CACHE)
        self._token = token
        self._details: dict[tuple, HubDetails] = {}
        self._pictures: dict[tuple, bytes | None] = {}
        self._cards: dict[tuple, str] = {}
        self._accounts: dict[str, str | HubError] = {}
        self._lock = threading.Lock()
        self._probed: tuple[float, str | None] | None = None

    # --- the way to the Hub

    def headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(token=self._token, library_name="contact-sheet")

    def problem(self, again: bool = False) -> str | None:
        """Why the Hub cannot be used now, None where it can; asked at most twice a minute."""
        if again or self._probed is None or time.monotonic() - self._probed[0] > PROBE_EVERY:
            found = None
            try:
                with reworded(self):
                    self._get(f"{self.endpoint}/api/models", {"limit": 1}, PROBE_TIMEOUT).close()
            except OfflineError as error:
                found = str(error)
            except HubError:
                pass  # it answers; the page that asks for something will say what is wrong
            self._probed = time.monotonic(), found
        return self._probed[1]

    def has_token(self) -> bool:
        from huggingface_hub import get_token

        return self._token is not False and bool(self._token or get_token())

    def account(self) -> str | None:
        """The name that the token belongs to; None without one, HubError where it is refused."""
        from huggingface_hub import HfApi, get_token

        if not self.has_token():
            return None
        token = self._token if isinstance(self._token, str) else get_token()
        known = self._accounts.get(token)
        if isinstance(known, HubError):  # the Hub allows few such questions
            raise known
        if known is None:
            try:
                with reworded(self):
                    known = HfApi(self.endpoint, token=token).whoami()["name"]
            except HubError as error:
                known = error
            self._accounts[token] = known
            return self.account()
        return known

    def url(self, model_id: str) -> str:
        return f"{self.endpoint}/{model_id}"

    def file_url(self, model_id: str, path: str, revision: str = "main") -> str:
        return (f"{self.endpoint}/{model_id}/resolve/{quote(revision, safe='')}/{quote(path)}")

    def _get(self, url: str, params: dict | None = None, timeout: float = TIMEOUT) -> Any:
        from huggingface_hub.utils import get_session, hf_raise_for_status

        answer = get_session().get(url, params=params, headers=self.headers(), timeout=timeout)
        hf_raise_for_status(answer)
        return answer

    def read(
        self, model_id: str, path: str, revision: str = "main", limit: int = MAX_TEXT
    ) -> bytes:
        """A small file's content, straight from the Hub; HubError where it is larger than `limit`
        bytes."""
        from huggingface_hub.utils import get_session, hf_raise_for_status

        url = self.file_url(model_id, path, revision)
        with reworded(self, model_id), get_session().stream(
            "GET", url, headers=self.headers(), timeout=TIMEOUT
        ) as answer:
            if answer.is_error:
                answer.read()
            hf_raise_for_status(answer)
            content = bytearray()
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > limit:
                    raise HubError(f"{path} of {model_id} is larger than {limit / 1e6:.0f} MB")
        return bytes(content)

    # --- search

    def search(self, query: HubQuery) -> HubSearch:
        return HubSearch(self, query)

    def listing(self, query: HubQuery) -> tuple[str, dict[str, Any]]:
        """Address and parameters of the Hub's own list for a query."""
        tags = [query.library, query.licence and f"license:{query.licence}",
                query.base_model and f"base_model:{query.base_model}"]
        gated = None if query.gated is None else str(query.gated).lower()
        parameters = {"search": query.text, "author": query.author, "pipeline_tag": query.task,
                      "filter": [tag for tag in tags if tag], "gated": gated,
                      "sort": SORTS[query.sort], "limit": PAGE, "expand": list(EXPAND)}
        return f"{self.endpoint}/api/models", {k: v for k, v in parameters.items() if v}

    def details(
        self, model_id: str, revision: str | None = None, variant: str | None = None,
        filename: str | None = None, configs_only: bool = False,
    ) -> HubDetails:  # fmt: skip
        """Everything about one model; raises HubError. A model that cannot be fetched has no plan
        and an obstacle that says why."""
        from huggingface_hub import HfApi

        revision = revision or "main"
        token = self._token
        with reworded(self, model_id, revision):
            info = HfApi(self.endpoint, token=token).model_info(
                model_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
        return self._describe(info, revision, variant, filename, configs_only)

    def describe_all(self, infos: Sequence[ModelInfo]) -> list[HubModel]:
        """Results of a search with size and obstacle, which the Hub's list does not tell."""
        if not infos:
            return []

        def one(info: ModelInfo) -> HubModel:
            key = (info.id, info.sha)
            with self._lock:
                known = self._details.get(key)
            if known is None:
                try:
                    known = self.details(info.id)
                except HubError as error:
                    return replace(self._model(info), obstacle=str(error))
                with self._lock:
                    if len(self._details) > MAX_REMEMBERED:
                        self._details.clear()
                    self._details[key] = known
            here = here_state(known.plan, self.cache_dir) if known.plan else "no"
            return replace(self._model(info, known.model), here=here)

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(one, infos))

    def _model(self, info: ModelInfo, known: HubModel | None = None) -> HubModel:
        """A result as the list tells it, completed by what is known of its files."""
        tags = tuple(info.tags or ())
        card = info.card_data.to_dict() if info.card_data else {}
        diffusers = (info.config or {}).get("diffusers") or {}
        updated = info.last_modified or info.created_at
        bases = card.get("base_model") or []
        model = HubModel(
            model_id=info.id,
            source="Hub",
            task=info.pipeline_tag,
            pipeline_class=diffusers.get("_class_name"),
            licence=licence_of(card, tags),
            gated=info.gated if info.gated in ("auto", "manual") else None,
            safetensors="safetensors" in tags or any(
                s.rfilename.endswith(".safetensors") for s in info.siblings or ()),
            downloads=info.downloads,
            likes=info.likes,
            updated=updated.date().isoformat() if updated else None,
            library=info.library_name,
            base_models=tuple(map(str, [bases] if isinstance(bases, str) else bases)),
            adapter="lora" in tags or any(t.startswith("base_model:adapter:") for t in tags),
            commit=info.sha,
            tags=tags,
        )
        if known is None:
            return model
        return replace(model, pipeline_class=known.pipeline_class or model.pipeline_class,
                       kind=known.kind, size_bytes=known.size_bytes, obstacle=known.obstacle)

    def _describe(
        self, info: ModelInfo, revision: str, variant: str | None, filename: str | None,
        configs_only: bool,
    ) -> HubDetails:  # fmt: skip
        model = self._model(info)
        files = tuple(
            HubFile(s.rfilename, s.lfs.size if s.lfs else s.size or 0,
                    s.lfs.sha256 if s.lfs else s.blob_id or "")
            for s in info.siblings or ()
        )  # fmt: skip
        index, plan, obstacle = None, None, None
        try:
            index = self._index(model, files, info.sha)
            plan = make_plan(info.id, revision, info.sha, files, index, variant, filename,
                             configs_only, (info.config or {}).get("model_type") in SEGMENTERS)
        except RefusedError as error:
            obstacle = str(error)
        model = replace(model, pipeline_class=(index or {}).get("_class_name")
                        or model.pipeline_class)
        obstacle = obstacle or pipeline_obstacle(model.pipeline_class, model.task)
        if plan:
            model = replace(model, kind=plan.kind, size_bytes=plan.size_bytes,
                            here=here_state(plan, self.cache_dir))
        return HubDetails(replace(model, obstacle=obstacle), files, index, plan,
                          info.card_data.to_dict() if info.card_data else {})

    def _index(
        self, model: HubModel, files: Sequence[HubFile], commit: str
    ) -> dict[str, Any] | None:
        """The content of model_index.json; None where there is none or where it is closed."""
        if not any(file.path == INDEX for file in files):
            return None
        try:
            index = json.loads(self.read(model.model_id, INDEX, commit))
        except GatedError:
            return None
        except ValueError as error:
            raise RefusedError(f"model_index.json cannot be read: {error}") from error
        if not isinstance(index, dict):
            raise RefusedError("model_index.json holds no JSON object")
        return index

    def check_access(self, model_id: str) -> None:
        """Raise GatedError where a gated model's conditions are still to be accepted."""
        from huggingface_hub import HfApi

        with reworded(self, model_id):
            HfApi(self.endpoint, token=self._token).auth_check(model_id)

    def folder(self, plan: DownloadPlan) -> Path:
        """Where a plan's files lie once they are fetched."""
        return repo_folder(self.cache_dir, plan.model_id) / "snapshots" / plan.commit

    # --- what belongs to a model

    def content(self, details: HubDetails, path: str, limit: int = MAX_TEXT) -> bytes:
        """A small file of a model, from its folder or from the Hub; raises HubError."""
        if not details.folders:
            return self.read(details.model.model_id, path, details.model.commit or "main", limit)
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise HubError(f"{path} lies outside of the model")
        found = next((folder / path for folder in details.folders if (folder / path).is_file()),
                     details.folders[0] / path)
        try:
            with open(found, "rb") as file:
                return file.read(limit)
        except OSError as error:
            raise HubError(f"{path} cannot be read: {error}") from error

    def card_text(self, details: HubDetails) -> str | None:
        """The model card in Markdown; None where there is none."""
        there = (any((folder / CARD).exists() for folder in details.folders) if details.folders
                 else any(file.path == CARD for file in details.files))
        if not there:
            return None
        key = (details.model.model_id, details.model.commit)
        if details.folders or key not in self._cards:
            self._cards[key] = self.content(details, CARD).decode("utf-8", "replace")
        return self._cards[key]

    def pictures(self, details: HubDetails, paths: Sequence[str]) -> dict[str, bytes]:
        """Pictures of a model as JPEG of at most PICTURE_SIDE pixels; those that cannot be read are
        left out. The browser never asks another host for them."""
        key = (details.model.model_id, details.model.commit)

        def one(path: str) -> bytes | None:
            if (*key, path) not in self._pictures:
                try:
                    picture = _small(self.content(details, path, MAX_PICTURE))
                except HubError:
                    picture = None
                with self._lock:
                    if len(self._pictures) > MAX_REMEMBERED_PICTURES:
                        self._pictures.clear()
                    self._pictures[(*key, path)] = picture
                return picture
            return self._pictures[(*key, path)]

        with ThreadPoolExecutor(6) as pool:
            found = zip(paths, pool.map(one, paths), strict=True)
            return {path: picture for path, picture in found if picture}


def example_pictures(details: HubDetails, most: int = 6) -> list[str]:
    """Paths of pictures in the repository: those that its card shows as outputs first."""
    paths = [file.path for file in details.files
             if file.suffix in PICTURES and file.size <= MAX_PICTURE]
    shown = [str((item.get("output") or {}).get("url", "")).removeprefix("./")
             for item in details.card.get("widget") or () if isinstance(item, dict)
             and isinstance(item.get("output"), dict)]  # fmt: skip
    first = [path for path in shown if path in paths]
    return list(dict.fromkeys([*first, *paths]))[:most]


def _small(content: bytes) -> bytes | None:
    """A picture made small enough to show; None where it is none."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP", "GIF")) as image:
            image.draft("RGB", (PICTURE_SIDE, PICTURE_SIDE))
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    out = io.BytesIO()
    picture.save(out, "PNG" if max(picture.size) <= 256 else "JPEG", quality=88)
    return out.getvalue()


class HubSearch:
    """The results of one query, fetched page by page as they are asked for."""

    def __init__(self, hub: Hub, query: HubQuery) -> None:
        self.hub, self.query = hub, query
        self._pages: list[list[HubModel]] = []
        self._rest: list[HubModel] = []
        self._next: tuple[str, dict[str, Any] | None] | None = hub.listing(query)

    def page(self, number: int = 1) -> list[HubModel]:
        """Results of page `number`, from 1; raises HubError.

        Where the size is limited, which the Hub cannot filter by, a page may hold fewer.
        """
        while len(self._pages) < number and (self._next or self._rest):
            self._fetch()
            self._pages.append(self._rest[:PAGE])
            self._rest = self._rest[PAGE:]
        return self._pages[number - 1] if len(self._pages) >= number else []

    def has_more(self, number: int) -> bool:
        """Whether a page may follow page `number`."""
        return len(self._pages) > number or bool(self._rest) or self._next is not None

    def _fetch(self) -> None:
        """Fill the rest up to a page, with a few requests at most."""
        from huggingface_hub import ModelInfo

        for _ in range(MAX_REQUESTS):
            if not self._next or len(self._rest) >= PAGE:
                return
            with reworded(self.hub):
                answer = self.hub._get(*self._next)
                infos = [ModelInfo(**item) for item in answer.json()]
            following = answer.links.get("next", {}).get("url")
            models = self.hub.describe_all(infos)
            limit = self.query.max_bytes
            self._rest += [model for model in models if limit is None
                           or (model.size_bytes is not None and model.size_bytes <= limit)]
            self._next = (self._own(following), None) if following else None

    def _own(self, url: str) -> str:
        """The next page's address, which must be on the same Hub: the token goes there."""
        own, other = urlsplit(self.hub.endpoint), urlsplit(url)
        return other._replace(scheme=own.scheme, netloc=own.netloc).geturl()


def matches(model: HubModel, query: HubQuery) -> bool:
    """Whether a model on this machine fits a query."""
    small = query.max_bytes is None or (model.size_bytes or 0) <= query.max_bytes
    author = model.model_id.split("/")[0].lower()
    return (
        query.text.lower() in model.model_id.lower()
        and query.task in (None, model.task)
        and query.library in (None, "diffusers")
        and (not query.author or (model.source == "Hub cache" and author == query.author.lower()))
        and query.licence in (None, model.licence)
        and not (query.gated and model.source != "Hub cache")
        and (not query.base_model or query.base_model in model.base_models)
        and small
    )


def licence_of(card: dict[str, Any], tags: Sequence[str]) -> str | None:
    named = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    licence = card.get("license") or named
    if licence == "other":
        licence = card.get("license_name") or licence
    return licence if isinstance(licence, str) else None


def here_state(plan: DownloadPlan, cache_dir: Path) -> str:
    """yes, partly or no: are the plan's files in the local cache, by name, commit and size?"""
    if all(cached_path(plan, file, cache_dir) for file in plan.files):
        return "yes"
    return "no" if missing_bytes(plan, cache_dir) == plan.size_bytes else "partly"


def missing_bytes(plan: DownloadPlan, cache_dir: Path) -> int:
    """What is still to be fetched: the same content may be here from another commit."""
    blobs = repo_folder(cache_dir, plan.model_id) / "blobs"
    return sum(file.size for file in plan.files
               if not (blobs / file.etag).exists() and not cached_path(plan, file, cache_dir))


def repo_folder(cache_dir: Path, model_id: str) -> Path:
    """Where huggingface_hub's cache keeps a model: blobs, refs and snapshots."""
    from huggingface_hub.file_download import repo_folder_name

    return cache_dir / repo_folder_name(repo_id=model_id, repo_type="model")


def cached_path(plan: DownloadPlan, file: HubFile, cache_dir: Path) -> Path | None:
    """Where a file of a plan lies in the cache; None where it is missing or of another size."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(plan.model_id, file.path, cache_dir, plan.commit)
    if isinstance(found, str) and os.path.getsize(found) == file.size:
        return Path(found)
    return None


@contextlib.contextmanager
def reworded(hub: Hub, model_id: str = "", revision: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into errors that say what to do."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except PipelineError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise OfflineError("HF_HUB_OFFLINE is set: the Hub is not asked, only what is on this "
                           "machine is shown") from error  # fmt: skip
    except errors.GatedRepoError as error:
        raise GatedError(gated_text(hub, model_id)) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"revision: {model_id} has no {revision!r}") from error
    except errors.RemoteEntryNotFoundError as error:
        raise HubError(f"{model_id} has no such file: {_path_of(error)}") from error
    except errors.RepositoryNotFoundError as error:
        private = "" if hub.has_token() else ", or it is private and no token is set"
        raise HubError(f"{model_id or 'this model'} is not on {host(hub)}{private}") from error
    except errors.HFValidationError as error:
        raise HubError(f"model_id: received {model_id!r}, accepted a name such as "
                       "organisation/name") from error  # fmt: skip
    except errors.HfHubHTTPError as error:
        raise HubError(_status_text(hub, error.response)) from error
    except httpx2.TimeoutException as error:
        raise OfflineError(f"{host(hub)} does not answer in time") from error
    except httpx2.TransportError as error:
        raise OfflineError(f"no connection to {host(hub)} ({error})") from error
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        raise HubError(f"{host(hub)} sent an answer that cannot be read: {error}") from error


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

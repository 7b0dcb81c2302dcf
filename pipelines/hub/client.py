"""The Hugging Face Hub: what a model is, its card and pictures; nothing is stored."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipelines.errors import GatedError, HubError, OfflineError, RefusedError
from pipelines.hub.cache import here_state, repo_folder
from pipelines.hub.model import ModelDetails, ModelSummary, base_models_of, licence_of
from pipelines.hub.pictures import MAX_PICTURE, small_picture
from pipelines.hub.plan import (
    CARD,
    INDEX,
    SEGMENTERS,
    DownloadPlan,
    HubFile,
    make_plan,
    pipeline_obstacle,
)
from pipelines.hub.wording import reworded
from pipelines.models.reading import parse_json

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

TIMEOUT = 10.0  # seconds without a byte
PROBE_TIMEOUT, PROBE_EVERY = 3.0, 30.0  # seconds
MAX_TEXT = 2_000_000  # bytes
MAX_REMEMBERED, MAX_REMEMBERED_PICTURES = 2000, 200


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
        self.token = token
        self._details: dict[tuple, ModelDetails] = {}
        self._pictures: dict[tuple, bytes | None] = {}
        self._cards: dict[tuple, str] = {}
        self._accounts: dict[str, str | HubError] = {}
        self._lock = threading.Lock()
        self._probed: tuple[float, str | None] | None = None

    # --- the way to the Hub

    def headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return build_hf_headers(token=self.token, library_name="contact-sheet")

    def problem(self, again: bool = False) -> str | None:
        """Why the Hub cannot be used now, None where it can; asked at most twice a minute."""
        if again or self._probed is None or time.monotonic() - self._probed[0] > PROBE_EVERY:
            problem = None
            try:
                with reworded(self):
                    self.get(f"{self.endpoint}/api/models", {"limit": 1}, PROBE_TIMEOUT).close()
            except OfflineError as error:
                problem = str(error)
            except HubError:
                pass  # it answers; the page that asks for something will say what is wrong
            self._probed = time.monotonic(), problem
        return self._probed[1]

    def has_token(self) -> bool:
        from huggingface_hub import get_token

        return self.token is not False and bool(self.token or get_token())

    def account(self) -> str | None:
        """The name that the token belongs to; None without one, HubError where it is refused."""
        from huggingface_hub import HfApi, get_token

        if not self.has_token():
            return None
        token = self.token if isinstance(self.token, str) else get_token()
        if token not in self._accounts:  # the Hub allows few such questions
            try:
                with reworded(self):
                    self._accounts[token] = HfApi(self.endpoint, token=token).whoami()["name"]
            except HubError as error:
                self._accounts[token] = error
        answer = self._accounts[token]
        if isinstance(answer, HubError):
            raise answer
        return answer

    def url(self, model_id: str) -> str:
        return f"{self.endpoint}/{model_id}"

    def file_url(self, model_id: str, path: str, revision: str = "main") -> str:
        return (f"{self.endpoint}/{model_id}/resolve/{quote(revision, safe='')}/{quote(path)}")

    def get(self, url: str, params: dict | None = None, timeout: float = TIMEOUT) -> Any:
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

    # --- models

    def details(
        self, model_id: str, revision: str | None = None, variant: str | None = None,
        filename: str | None = None, configs_only: bool = False,
    ) -> ModelDetails:
        """Everything about one model; raises HubError. A model that cannot be fetched has no plan
        and an obstacle that says why."""
        from huggingface_hub import HfApi

        revision = revision or "main"
        with reworded(self, model_id, revision):
            info = HfApi(self.endpoint, token=self.token).model_info(
                model_id, revision=revision, files_metadata=True, timeout=TIMEOUT)
        return self._describe(info, revision, variant, filename, configs_only)

    def describe_all(self, infos: Sequence[ModelInfo]) -> list[ModelSummary]:
        """Results of a search with size and obstacle, which the Hub's list does not tell."""
        if not infos:
            return []

        def summary(info: ModelInfo) -> ModelSummary:
            key = (info.id, info.sha)
            with self._lock:
                details = self._details.get(key)
            if details is None:
                try:
                    details = self.details(info.id)
                except HubError as error:
                    return replace(_listed(info), obstacle=str(error))
                with self._lock:
                    if len(self._details) > MAX_REMEMBERED:
                        self._details.clear()
                    self._details[key] = details
            listed, model = _listed(info), details.model
            return replace(listed, pipeline_class=model.pipeline_class or listed.pipeline_class,
                           kind=model.kind, size_bytes=model.size_bytes, obstacle=model.obstacle,
                           here=here_state(details.plan, self.cache_dir) if details.plan else "no")

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(summary, infos))

    def _describe(
        self, info: ModelInfo, revision: str, variant: str | None, filename: str | None,
        configs_only: bool,
    ) -> ModelDetails:
        model = _listed(info)
        files = tuple(
            HubFile(s.rfilename, s.lfs.size if s.lfs else s.size or 0,
                    s.lfs.sha256 if s.lfs else s.blob_id or "")
            for s in info.siblings or ()
        )
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
        return ModelDetails(replace(model, obstacle=obstacle), files, index, plan,
                            info.card_data.to_dict() if info.card_data else {})

    def _index(
        self, model: ModelSummary, files: Sequence[HubFile], commit: str
    ) -> dict[str, Any] | None:
        """The content of model_index.json; None where there is none or where it is closed."""
        if not any(file.path == INDEX for file in files):
            return None
        try:
            index = parse_json(self.read(model.model_id, INDEX, commit))
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
            HfApi(self.endpoint, token=self.token).auth_check(model_id)

    def folder(self, plan: DownloadPlan) -> Path:
        """Where a plan's files lie once they are fetched."""
        return repo_folder(self.cache_dir, plan.model_id) / "snapshots" / plan.commit

    # --- what belongs to a model

    def content(self, details: ModelDetails, path: str, limit: int = MAX_TEXT) -> bytes:
        """A small file of a model, from its folder or from the Hub; raises HubError."""
        if not details.folders:
            return self.read(details.model.model_id, path, details.model.commit or "main", limit)
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise HubError(f"{path} lies outside of the model")
        place = next((folder / path for folder in details.folders if (folder / path).is_file()),
                     details.folders[0] / path)
        try:
            with place.open("rb") as file:
                return file.read(limit)
        except OSError as error:
            raise HubError(f"{path} cannot be read: {error}") from error

    def card_text(self, details: ModelDetails) -> str | None:
        """The model card in Markdown; None where there is none."""
        there = (any((folder / CARD).exists() for folder in details.folders) if details.folders
                 else any(file.path == CARD for file in details.files))
        if not there:
            return None
        key = (details.model.model_id, details.model.commit)
        if details.folders or key not in self._cards:
            self._cards[key] = self.content(details, CARD).decode("utf-8", "replace")
        return self._cards[key]

    def pictures(self, details: ModelDetails, paths: Sequence[str]) -> dict[str, bytes]:
        """Pictures of a model as JPEG of at most PICTURE_SIDE pixels; those that cannot be read are
        left out. The browser never asks another host for them."""
        key = (details.model.model_id, details.model.commit)

        def picture_at(path: str) -> bytes | None:
            if (*key, path) not in self._pictures:
                try:
                    picture = small_picture(self.content(details, path, MAX_PICTURE))
                except HubError:
                    picture = None
                with self._lock:
                    if len(self._pictures) > MAX_REMEMBERED_PICTURES:
                        self._pictures.clear()
                    self._pictures[(*key, path)] = picture
                return picture
            return self._pictures[(*key, path)]

        with ThreadPoolExecutor(6) as pool:
            pairs = zip(paths, pool.map(picture_at, paths), strict=True)
            return {path: picture for path, picture in pairs if picture}


def _listed(info: ModelInfo) -> ModelSummary:
    """A model as the Hub's list tells of it."""
    tags = tuple(info.tags or ())
    card = info.card_data.to_dict() if info.card_data else {}
    diffusers = (info.config or {}).get("diffusers") or {}
    updated = info.last_modified or info.created_at
    return ModelSummary(
        model_id=info.id,
        source="Hub",
        task=info.pipeline_tag,
        pipeline_class=diffusers.get("_class_name"),
        licence=licence_of(card, tags),
        gated=info.gated if info.gated in ("auto", "manual") else None,
        safetensors="safetensors" in tags or any(
            file.rfilename.endswith(".safetensors") for file in info.siblings or ()),
        downloads=info.downloads,
        likes=info.likes,
        updated=updated.date().isoformat() if updated else None,
        library=info.library_name,
        base_models=base_models_of(card),
        adapter="lora" in tags or any(tag.startswith("base_model:adapter:") for tag in tags),
        commit=info.sha,
        tags=tags,
    )

"""Searching for models: on the Hub, page by page, and among those on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from pipelines.hub.client import Hub
from pipelines.hub.model import ModelSummary
from pipelines.hub.wording import reworded

PAGE = 20
MAX_REQUESTS = 5  # of the Hub's pages to fill one page of ours, where a filter is our own
SORTS = {"trending": "trendingScore", "downloads": "downloads", "likes": "likes",
         "date": "lastModified"}
EXPAND = ("author", "cardData", "config", "createdAt", "downloads", "gated", "lastModified",
          "library_name", "likes", "pipeline_tag", "private", "sha", "siblings", "tags",
          "trendingScore")


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


class HubSearch:
    """The results of one query, fetched page by page as they are asked for."""

    def __init__(self, hub: Hub, query: HubQuery) -> None:
        self.hub, self.query = hub, query
        self._pages: list[list[ModelSummary]] = []
        self._rest: list[ModelSummary] = []
        self._next: tuple[str, dict[str, Any] | None] | None = (
            f"{hub.endpoint}/api/models", listing_parameters(query))

    def page(self, number: int = 1) -> list[ModelSummary]:
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
                answer = self.hub.get(*self._next)
                infos = [ModelInfo(**item) for item in answer.json()]
            following = answer.links.get("next", {}).get("url")
            models = self.hub.describe_all(infos)
            limit = self.query.max_bytes
            self._rest += [model for model in models if limit is None
                           or (model.size_bytes is not None and model.size_bytes <= limit)]
            self._next = (self._on_this_hub(following), None) if following else None

    def _on_this_hub(self, url: str) -> str:
        """The next page's address, which must be on the same Hub: the token goes there."""
        hub = urlsplit(self.hub.endpoint)
        return urlsplit(url)._replace(scheme=hub.scheme, netloc=hub.netloc).geturl()


def listing_parameters(query: HubQuery) -> dict[str, Any]:
    """What the Hub's list of models is asked with for a query."""
    tags = [query.library, query.licence and f"license:{query.licence}",
            query.base_model and f"base_model:{query.base_model}"]
    gated = None if query.gated is None else str(query.gated).lower()
    parameters = {"search": query.text, "author": query.author, "pipeline_tag": query.task,
                  "filter": [tag for tag in tags if tag], "gated": gated,
                  "sort": SORTS[query.sort], "limit": PAGE, "expand": list(EXPAND)}
    return {name: value for name, value in parameters.items() if value}


def matches(model: ModelSummary, query: HubQuery) -> bool:
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

"""What is shown of a model, be it on the Hub or on this machine: a line of a list, all details."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.hub.plan import DownloadPlan, HubFile
from pipelines.models.signatures import connected_class


@dataclass(frozen=True)
class ModelSummary:
    """A line of a list of models. `source`: Hub, bundled, folder, single file or Hub cache.

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
class ModelDetails:
    """One model with its files, the content of its model_index.json, and the plan for it; `card` is
    the head of its README, `folders` where files and card lie, empty for a model on the Hub."""

    model: ModelSummary
    files: tuple[HubFile, ...]
    index: dict[str, Any] | None
    plan: DownloadPlan | None
    card: dict[str, Any] = field(default_factory=dict)
    folders: tuple[Path, ...] = ()

    @property
    def prior(self) -> str | None:
        """The other repository that a two-stage pipeline needs, such as Kandinsky's prior."""
        prior = self.card.get("prior")
        prior = prior[0] if isinstance(prior, list) and prior else prior
        needed = self.model.pipeline_class and connected_class(self.model.pipeline_class)
        return prior if needed and isinstance(prior, str) else None


def licence_of(card: dict[str, Any], tags: Sequence[str]) -> str | None:
    named = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    licence = card.get("license") or named
    if licence == "other":
        licence = card.get("license_name") or licence
    return licence if isinstance(licence, str) else None


def base_models_of(card: dict[str, Any]) -> tuple[str, ...]:
    """What a model was made from, by its card, which names one or several."""
    names = card.get("base_model") or []
    return tuple(map(str, names if isinstance(names, list) else [names]))

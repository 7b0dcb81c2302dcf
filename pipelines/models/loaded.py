"""A pipeline in memory: its views for the tasks, and the LoRA adapters that are on its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError, RequestError, first_line
from pipelines.models.adapters import put_adapter
from pipelines.models.files import find_lora
from pipelines.models.identity import lora_contents
from pipelines.models.info import ModelInfo
from pipelines.models.parts import inner_pipelines

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from pipelines.request import Lora


@dataclass
class LoadedModel:
    """A pipeline in memory; its tasks are views of the same weights.

    `size_bytes` counts each weight once, however many tasks use it; `memory_policy` is where the
    weights lie between uses; `content` and `lora_contents` hash the files as they were read;
    `weight_notes` and `lora_notes` say what of the files is not used.
    """

    info: ModelInfo
    content: str
    device: str
    dtype: str
    memory_policy: str
    load_ms: float
    pipe: DiffusionPipeline
    size_bytes: int
    weight_notes: tuple[str, ...] = ()
    views: dict[str, DiffusionPipeline] = field(default_factory=dict)
    warmed: set[tuple] = field(default_factory=set)
    loras: tuple[Lora, ...] = ()
    lora_contents: tuple[str, ...] = ()
    lora_notes: tuple[str, ...] = ()
    compiled: dict[str, Callable] = field(default_factory=dict)  # by attention backend
    networks: dict[tuple[int, str], Any] = field(default_factory=dict)  # see painting/networks.py

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.info.tasks

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the model's files and of its adapters has no effect."""
        return self.weight_notes + self.lora_notes

    def view(self, task: str) -> DiffusionPipeline:
        """A new pipeline object for one run, which shares nothing but the weights."""
        if task not in self.tasks:
            raise RequestError(
                f"task: received {task!r}, accepted for {self.info.model_id} "
                f"({self.info.pipeline_class}): {', '.join(self.tasks)}"
            )
        if task not in self.views:
            import diffusers

            name = self.info.task_classes[task]
            self.views[task] = (self.pipe if type(self.pipe).__name__ == name
                                else self._as(getattr(diffusers, name)))
        view = copy_of(self.views[task])
        if self.memory_policy == "model-offload" and len(self.views) > 1:
            view.enable_model_cpu_offload(device=self.device)  # its hooks know one pipeline
        return view

    def _as(self, cls: type[DiffusionPipeline]) -> DiffusionPipeline:
        """A pipeline of another class on the same weights, in the precision that they have."""
        import torch

        dtypes = {part.dtype for part in self.pipe.components.values()
                  if isinstance(part, torch.nn.Module)}
        if len(dtypes) > 1:  # from_pipe casts all to one, in place
            raise RequestError(
                f"task: {self.info.model_id} has weights of {', '.join(sorted(map(str, dtypes)))}, "
                f"which {cls.__name__} would make one; accepted the tasks of "
                f"{self.info.pipeline_class}")
        return cls.from_pipe(self.pipe, dtype=dtypes.pop())

    def use_loras(self, loras: Sequence[Lora]) -> None:
        """Put these adapters on the weights, and remove those of the run before.

        Raises RequestError where the pipeline takes none, LoadError where one does not fit.
        """
        loras = tuple(loras)
        if loras and not hasattr(self.pipe, "load_lora_weights"):
            raise RequestError(f"loras: {self.info.pipeline_class} takes no LoRA adapters")
        contents = lora_contents(loras)
        if (loras, contents) == (self.loras, self.lora_contents):
            return
        if self.loras:
            self._remove_loras()
        if not loras:
            return
        names = [f"lora{number}" for number in range(len(loras))]
        try:
            notes = [note for lora, name in zip(loras, names, strict=True)
                     for note in put_adapter(self.pipe, find_lora(lora.path), name)]
            self.pipe.set_adapters(names, [lora.weight for lora in loras])
        except Exception as error:
            self._remove_loras()
            if isinstance(error, LoadError):
                raise
            raise LoadError(f"lora: {', '.join(lora.path for lora in loras)} cannot be put on "
                            f"{self.info.model_id}: {first_line(error)}") from error
        self.loras, self.lora_contents, self.lora_notes = loras, contents, tuple(notes)

    def _remove_loras(self) -> None:
        self.loras = self.lora_contents = self.lora_notes = ()
        self.pipe.unload_lora_weights()


def copy_of(pipe: DiffusionPipeline) -> DiffusionPipeline:
    """New pipeline objects on the same weights, those inside a combined one included."""
    pipe = copy.copy(pipe)
    vars(pipe).update({name: copy.copy(part) for name, part in inner_pipelines(pipe).items()})
    pipe.set_progress_bar_config(disable=True)
    return pipe

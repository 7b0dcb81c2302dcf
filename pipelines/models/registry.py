"""Model ids -> loaded pipelines, one per model, device and dtype, shared by pages and threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pipelines.errors import LoadError, PipelineError, RequestError
from pipelines.hardware import best_device, default_dtype, use_device
from pipelines.models.files import BUNDLED, find_model
from pipelines.models.hosted import describe_hosted
from pipelines.models.identity import model_content
from pipelines.models.in_memory import check_as_it_is, hold
from pipelines.models.info import ModelInfo, describe
from pipelines.models.loaded import LoadedModel
from pipelines.models.opening import open_model
from pipelines.models.placement import choose_policy, free_memory, loaded_bytes, memory_limit
from pipelines.names import is_hosted

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from pipelines.request import Lora, RunRequest


class Registry:
    """Opens models by id and keeps them; safe for threads.

    Weights take at most `max_bytes` of memory (by default MEMORY_SHARE of the device's): the
    models used longest ago go first, the newest stays in any case.
    """

    def __init__(self, device: str | None = None, max_bytes: int | None = None) -> None:
        self._device = device
        self._max_bytes = max_bytes
        self._models: dict[tuple, LoadedModel] = {}
        self._held: dict[str, LoadedModel] = {}  # pipelines that the user has in memory
        self._lock = threading.RLock()  # of the device: one borrows at a time

    @property
    def device(self) -> str:
        return self._device or best_device()

    def bundled(self) -> list[ModelInfo]:
        return [self.describe(model_id) for model_id in BUNDLED]

    def describe(
        self, model_id: str, revision: str | None = None, variant: str | None = None
    ) -> ModelInfo:
        """What a model's files say, without torch; raises UnknownModelError or LoadError."""
        if model_id in self._held:
            return self._held[model_id].info
        if is_hosted(model_id):
            return describe_hosted(model_id, revision, variant)
        return describe(model_id, revision, variant)

    def hold(self, pipe: DiffusionPipeline) -> str:
        """Take a pipeline that is in memory as it is; the id that it has here. Raises LoadError, or
        RequestError where it is on another device."""
        model = hold(pipe)
        if model.device != self.device:
            raise RequestError(f"the pipeline is on {model.device}, accepted {self.device}: all "
                               "pictures of a comparison are made on one device")
        self._held[model.info.model_id] = model
        return model.info.model_id

    def check(self, request: RunRequest) -> None:
        """Raise RequestError where a request wants a held pipeline otherwise than it is."""
        if held := self._held.get(request.model_id):
            check_as_it_is(held, request.weights)

    def dtype(self, request: RunRequest, device: str) -> str:
        """The precision that a request's model has, or would be loaded in on a device."""
        held = self._held.get(request.model_id)
        return held.dtype if held else request.torch_dtype or default_dtype(device)

    def steps_to_run(self, request: RunRequest) -> int:
        """The steps that really run; as most models do it where this one is unknown."""
        if request.image or request.num_inference_steps is None:
            with suppress(PipelineError):
                info = self.describe(request.model_id, request.revision, request.variant)
                return info.steps_to_run(request)
        return request.steps_to_run

    @contextmanager
    def borrow(
        self,
        model_id: str,
        revision: str | None = None,
        variant: str | None = None,
        torch_dtype: str | None = None,
        memory_policy: str = "auto",
        quantization: str | None = None,
        loras: Sequence[Lora] = (),
    ) -> Iterator[tuple[LoadedModel, bool]]:
        """The loaded model and whether this call loaded it, with its device to oneself.

        The arguments are `RunRequest.weights`. Raises LoadError, RequestError, DeviceMemoryError.
        """
        with self._lock:
            use_device(self.device)
            if held := self._held.get(model_id):
                check_as_it_is(held, {
                    "revision": revision, "variant": variant, "torch_dtype": torch_dtype,
                    "memory_policy": memory_policy, "quantization": quantization, "loras": loras})
                yield held, False
                return
            info = self.describe(model_id, revision, variant)
            dtype = torch_dtype or default_dtype(self.device)
            policy = choose_policy(info, dtype, memory_policy, self.device, self._limit())
            content = model_content(info)
            for key, old in list(self._models.items()):
                if key[0] == info.content and old.content != content:
                    del self._models[key]  # the files have changed since
            key = (info.content, info.variant, self.device, dtype, policy, quantization)
            model = self._models.pop(key, None)
            fresh = model is None
            if fresh:
                self._make_room(loaded_bytes(info, dtype))
                model = open_model(info, content, self.device, dtype, policy, quantization)
                if model_content(info) != content:
                    raise LoadError(f"{model_id} changed on disk while it was read; run it again")
            self._models[key] = model  # the last is the one used last
            model.use_loras(loras)
            yield model, fresh

    def _limit(self) -> int:
        return memory_limit(self.device) if self._max_bytes is None else self._max_bytes

    def _make_room(self, needed: int) -> None:
        used = sum(model.size_bytes for model in self._models.values())
        while self._models and used + needed > self._limit():
            oldest = next(iter(self._models))
            used -= self._models.pop(oldest).size_bytes
            free_memory(self.device)

    def unload(self, model_id: str) -> None:
        """Forget a model, so that its memory can be used again once no run holds it."""
        with self._lock:
            folder, _, checkpoint = find_model(model_id, None)
            content = (checkpoint or folder).resolve()
            self._models = {key: m for key, m in self._models.items() if key[0] != content}
            free_memory(self.device)

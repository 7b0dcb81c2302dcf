"""CLIP's opinion of pictures, where its weights are on this machine; nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import LoadError
from pipelines.models.files import find_weights
from pipelines.models.opening import warm_libraries
from pipelines.models.weights import checked_weights

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

# Looked for in the Hugging Face cache in this order; safetensors are the only weights read.
CHECKPOINTS = (
    "openai/clip-vit-large-patch14", "openai/clip-vit-base-patch16", "openai/clip-vit-base-patch32",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
)
FILES = ("config.json", "model.safetensors", "preprocessor_config.json")
FETCH = f'hf download {CHECKPOINTS[0]} --include "*.json" "*.txt" model.safetensors'


class Clip:
    """CLIP (Radford et al. 2021, arXiv:2103.00020); opened when it is first asked.

    Pictures are named, so that each is looked at once. Raises LoadError where the files cannot be
    opened.
    """

    def __init__(self, folder: Path, name: str, device: str) -> None:
        self.folder, self.name, self.device = folder, name, device
        self._parts: tuple[Any, Any, Any] | None = None
        self._seen: dict[tuple[str, str], torch.Tensor] = {}

    def distance(self, first: tuple[str, Image], second: tuple[str, Image]) -> float:
        """1 - the cosine of two pictures' embeddings: 0 for equal ones, at most 2."""
        return max(0.0, 1 - float(self.embedding(*first) @ self.embedding(*second)))

    def score(self, picture: tuple[str, Image], prompt: str) -> float:
        """100 times the cosine of a picture and its prompt, at least 0 (Hessel et al. 2021,
        arXiv:2104.08718, without their factor); the first 77 tokens are read."""
        return 100 * max(0.0, float(self.embedding(*picture) @ self._text(prompt)))

    def embedding(self, name: str, image: Image) -> torch.Tensor:
        """What CLIP sees in a picture, a vector of unit length."""
        import torch

        if ("picture", name) not in self._seen:
            model, processor, _ = self._opened()
            pixels = processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"]
            with torch.no_grad():
                pooled = model.vision_model(pixels.to(self.device)).pooler_output
                self._seen["picture", name] = _unit(model.visual_projection(pooled)[0])
        return self._seen["picture", name]

    def _text(self, prompt: str) -> torch.Tensor:
        import torch

        if ("prompt", prompt) not in self._seen:
            model, _, tokenizer = self._opened()
            tokens = tokenizer(prompt, truncation=True, max_length=77, return_tensors="pt")
            with torch.no_grad():
                pooled = model.text_model(**tokens.to(self.device)).pooler_output
                self._seen["prompt", prompt] = _unit(model.text_projection(pooled)[0])
        return self._seen["prompt", prompt]

    def _opened(self) -> tuple[Any, Any, Any]:
        if self._parts is None:
            warm_libraries()
            import transformers

            local = {"local_files_only": True}
            try:
                with checked_weights():
                    model = transformers.CLIPModel.from_pretrained(
                        self.folder, use_safetensors=True, **local)
                self._parts = (
                    model.eval().to(self.device),
                    # The same pixels whether torchvision is there or not.
                    transformers.CLIPImageProcessorPil.from_pretrained(self.folder, **local),
                    transformers.CLIPTokenizer.from_pretrained(self.folder, **local),
                )
            except Exception as error:
                raise LoadError(f"CLIP: {self.folder} cannot be opened: {error}") from error
        return self._parts


def find_clip(device: str) -> Clip | None:
    """The CLIP of CONTACT_SHEET_CLIP (a folder or a cached id), else the first of CHECKPOINTS that
    is in the cache, None without one. Raises LoadError where the named one is not there."""
    named = os.environ.get("CONTACT_SHEET_CLIP")
    for candidate in [named] if named else CHECKPOINTS:
        if folder := find_weights(candidate, FILES, FILES):
            return Clip(folder, candidate, device)
    if named:
        raise LoadError(f"CONTACT_SHEET_CLIP: received {named!r}, accepted a folder or a cached id "
                        f"with {', '.join(FILES)}")
    return None


def _unit(embedding: torch.Tensor) -> torch.Tensor:
    return (embedding / embedding.norm()).float().cpu()

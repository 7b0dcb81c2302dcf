"""In-painting at any size: what the model sees of a picture, and how its work goes back in.

The model paints a working picture of about its own size: the whole picture or the masked part,
scaled with its aspect kept and mirrored at the rim up to a multiple that the model can take.
What comes back is scaled and blended into the picture through the feathered mask, so that each
pixel where that mask is 0 is the picture's own, its alpha included. What is transparent is shown to
the model as white; what it paints lies over the picture like a layer that is as opaque as the mask.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.errors import RequestError
from pipelines.inpainting import masks
from pipelines.pixels import flat, input_notes, opacity_of
from pipelines.request import MAX_SIDE, RunRequest

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

    from pipelines.models.info import ModelInfo
    from pipelines.painting.extras import Extras
    from pipelines.painting.result import OnStep

OWN_SIDE = 1024  # pixels, for models whose files name no size: Flux and those after it
LONGEST = 4  # times the model's own side: a strip is not drawn out further
WIDEST = 2  # a masked part is widened until it is at most this much longer than wide
SOFT_FULL = 64  # grey of a differential mask from which on the new picture shows in full


@dataclass(frozen=True)
class WorkingSize:
    """`width`, `height`: what the model paints; `inner`: the part of it that holds the picture,
    from the left upper corner; `scale`: working pixels per pixel of the picture."""

    width: int
    height: int
    inner: tuple[int, int]
    scale: float


@dataclass(frozen=True)
class Canvas:
    """The pictures of an in-painting, prepared: `images` are what the pipeline is given, `box` is
    the part of the picture that the model sees, `alpha` how much of the model's work each pixel
    takes, `differential` whether by degrees, `opacity` the picture's own alpha, None where it is
    opaque."""

    differential: bool
    images: dict[str, Image]
    picture: np.ndarray
    opacity: masks.Mask | None
    alpha: masks.Mask
    box: masks.Box
    size: WorkingSize
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, request: RunRequest, images: Mapping[str, Image], info: ModelInfo, cell: int = 8
    ) -> Canvas:
        """Prepare a request; `cell`: pixels per latent. Raises RequestError for a mask that is
        empty or of another size than the picture."""
        from PIL import Image

        source = images["image"]
        opacity = opacity_of(source)
        seen = flat(source)
        picture = np.asarray(source.convert("RGBA").convert("RGB") if opacity else seen)
        mask = masks.as_mask(images["mask_image"])
        alpha = soft_mask(request, mask, picture.shape[:2])
        box = painted_box(request, alpha)
        size = working_size(request, info, box[2] - box[0], box[3] - box[1])
        work = _fitted(seen, box, size)
        work_mask = _by_cells(_fitted_mask(alpha, box, size, request.differential), cell)
        if request.masked_content == "fill":
            work = _filled(work, work_mask)
        others = {name: flat(other) for name, other in images.items()
                  if name not in ("image", "mask_image")}
        notes = [*input_notes({"image": source, "mask_image": images["mask_image"], **others})]
        others = {name: _fitted(other.resize(source.size), box, size)
                  for name, other in others.items()}
        if opacity:
            notes.append("image: the model saw white where it is transparent; outside the mask its "
                         "alpha is kept")  # fmt: skip
        if not request.differential and ((mask > 0) & (mask < 255)).any():
            notes.append("mask_image: its greys count as black below half and as white above; "
                         "differential repaints them by degrees")  # fmt: skip
        return cls(
            request.differential,
            {**others, "image": work, "mask_image": Image.fromarray(work_mask)},
            picture, np.asarray(opacity) if opacity else None, alpha, box, size, tuple(notes),
        )  # fmt: skip

    def fitted(self, request: RunRequest) -> RunRequest:
        """The request as the pipeline is given it."""
        return request.changed(width=self.size.width, height=self.size.height)

    def paste(self, painted: Image) -> Image:
        """The model's picture, of any resolution, blended into the whole one."""
        from PIL import Image

        left, top, right, bottom = self.box
        whole = painted.convert("RGB").resize((self.size.width, self.size.height),
                                              Image.Resampling.BICUBIC)
        inner = whole.crop((0, 0, *self.size.inner))
        new = inner.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        alpha = self.alpha[top:bottom, left:right]
        weight = _full_from(alpha, SOFT_FULL if self.differential else 255)
        result = self.picture.copy()
        if self.opacity is not None:  # the painted layer over one that is transparent itself
            opacity = self.opacity.copy()
            below = opacity[top:bottom, left:right]
            shown = weight + below.astype(np.float32) / 255 * (1 - weight)
            below[alpha > 0] = (shown * 255).round().astype(np.uint8)[alpha > 0]
            weight = weight / np.maximum(shown, 1e-6)
        old = result[top:bottom, left:right]
        mixed = old + (np.asarray(new).astype(np.float32) - old) * weight[..., None]
        old[alpha > 0] = mixed.round().astype(np.uint8)[alpha > 0]
        if self.opacity is not None and (opacity < 255).any():
            result = np.dstack([result, opacity])
        return Image.fromarray(result)

    def watch(self, on_step: OnStep | None, extras: Extras) -> OnStep | None:
        """The same callback; its previews show the whole picture."""
        if on_step is None:
            return None

        def watched(step: Any) -> None:
            def preview() -> Image | None:
                with extras.attempt("previews"):
                    painted = step.preview()
                    return self.paste(painted) if painted else None
                return None

            on_step(replace(step, preview=preview))

        return watched


def soft_mask(
    request: RunRequest, mask: masks.Mask, shape: tuple[int, int] | None = None
) -> masks.Mask:
    """The feathered mask of a request: pixels where it is 0 are kept as they are.

    Raises RequestError where nothing is masked, or the size is not the picture's.
    """
    if shape and mask.shape != shape:
        raise RequestError(
            f"mask_image: received {masks.size_text(mask)}, accepted the image's size: "
            f"{shape[1]} x {shape[0]} px"
        )
    soft = feathered(mask, request.mask_feather, request.differential)
    if not soft.any():
        raise RequestError("mask_image: nothing is masked, so nothing would be repainted; "
                           "white pixels are")  # fmt: skip
    return soft


def feathered(mask: masks.Mask, feather: int, differential: bool) -> masks.Mask:
    """A mask as it counts, with its rim: its greys by degrees, or as white from half."""
    if not differential:
        mask = np.where(mask >= masks.HALF, 255, 0).astype(np.uint8)
    return masks.feather(mask, feather)


@dataclass(frozen=True)
class MaskSummary:
    """What is told of a mask as it counts: its size, how many pixels are repainted, how many of
    those are in the feathered rim, and a thumbnail of it."""

    width: int
    height: int
    repainted: int
    rim: int
    thumbnail: masks.Mask

    @classmethod
    def of(cls, soft: masks.Mask, mask: masks.Mask, differential: bool) -> MaskSummary:
        """Of a mask with its rim and without."""
        height, width = soft.shape
        rim = soft != feathered(mask, 0, differential)
        small = masks.as_mask(masks.thumbnail(masks.as_image(soft)))
        return cls(width, height, np.count_nonzero(soft), np.count_nonzero(rim), small)

    @property
    def share(self) -> float:
        """The part of the picture that is not kept as it is, 0 to 1."""
        return self.repainted / (self.width * self.height)


def painted_box(request: RunRequest, alpha: masks.Mask) -> masks.Box:
    """The part of the picture that the model sees: all, or the masked part with its padding."""
    height, width = alpha.shape
    if request.padding_mask_crop is None:
        return 0, 0, width, height
    left, top, right, bottom = masks.bounding_box(alpha, request.padding_mask_crop)
    short = ceil(max(right - left, bottom - top) / WIDEST)
    left, right = _widened(left, right, short, width)
    top, bottom = _widened(top, bottom, short, height)
    return left, top, right, bottom


def working_size(request: RunRequest, info: ModelInfo, width: int, height: int) -> WorkingSize:
    """How large the model paints a part of `width` x `height` px.

    The request's own width and height where it has them, else about the area that the model
    was trained at; in both cases the aspect stays.
    """
    own_width, own_height = info.width or OWN_SIDE, info.height or OWN_SIDE
    if request.width or request.height:
        full = request.width or own_width, request.height or own_height
        scale = min(full[0] / width, full[1] / height)
    else:
        scale = sqrt(own_width * own_height / (width * height))
        longest = min(MAX_SIDE, LONGEST * max(own_width, own_height))
        scale = min(scale, longest / max(width, height))
        full = None
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    if full is None:
        step = info.size_multiple
        least = min(own_width, own_height) / LONGEST
        full = tuple(ceil(max(side, least) / step) * step for side in inner)
    inner = min(inner[0], full[0]), min(inner[1], full[1])
    return WorkingSize(*full, inner, scale)


def changed_unmasked_pixels(
    request: RunRequest, before: Image, mask_image: Image, after: Image
) -> tuple[int, int]:
    """How many pixels outside the feathered mask differ, in colour or alpha, and of how many."""
    kept = soft_mask(request, masks.as_mask(mask_image)) == 0
    old, new = (np.asarray(image.convert("RGBA")) for image in (before, after))
    if old.shape != new.shape:
        return int(kept.sum()), int(kept.sum())
    return int(((old != new).any(axis=-1) & kept).sum()), int(kept.sum())


def takes_differential(pipe: DiffusionPipeline) -> bool:
    """Whether a pipeline blends latents by a mask in every step, so that the mask can move."""
    code = getattr(inspect.unwrap(type(pipe).__call__), "__code__", None)
    nine = getattr(getattr(pipe, "unet", None), "config", {}).get("in_channels") == 9
    return bool(code and "init_mask" in code.co_varnames and not nine
                and hasattr(pipe, "mask_processor") and hasattr(pipe, "prepare_mask_latents")
                and hasattr(pipe, "get_timesteps"))  # fmt: skip


def use_differential_mask(pipe: DiffusionPipeline) -> Callable[[int], None]:
    """Let a run's own pipeline repaint grey by degrees; to be called at the end of each step.

    Differential diffusion (Levin and Fried 2023, arXiv:2306.00950): a pixel of value v is kept
    until the share 1 - v of the steps has run. `pipe` must take_differential.
    """
    processor = pipe.mask_processor
    pipe.mask_processor = type(processor)(**{**processor.config, "do_binarize": False})
    seen: dict[str, Any] = {}

    def counted(get_timesteps: Callable) -> Callable:
        @functools.wraps(get_timesteps)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            result = get_timesteps(*args, **kwargs)
            seen["steps"] = len(result[0])
            return result

        return wrapped

    def kept(prepare: Callable) -> Callable:
        @functools.wraps(prepare)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            mask, *others = prepare(*args, **kwargs)
            seen["soft"], seen["mask"] = mask.clone(), mask
            move(0)
            return mask, *others

        return wrapped

    def move(step: int) -> None:
        """Set the mask that is used after `step` (from 0), in place: the loop holds views of it."""
        bound = 1 - (step + 1) / seen["steps"]
        soft = seen["soft"]
        seen["mask"].copy_((soft > 0) & (soft >= bound - 1e-4))

    def step_ended(step: int) -> None:
        if step + 1 < seen["steps"]:
            move(step + 1)

    pipe.get_timesteps = counted(pipe.get_timesteps)
    pipe.prepare_mask_latents = kept(pipe.prepare_mask_latents)
    return step_ended


def _widened(low: int, high: int, least: int, limit: int) -> tuple[int, int]:
    """An interval of at least `least`, inside 0 .. limit where there is room."""
    missing = max(0, min(least, limit) - (high - low))
    low = max(0, low - missing // 2)
    high = min(limit, max(high, low + min(least, limit)))
    return max(0, min(low, high - min(least, limit))), high


def _fitted(image: Image, box: masks.Box, size: WorkingSize) -> Image:
    """A part of the picture at its working size, mirrored where the aspect leaves room."""
    from PIL import Image

    pixels = np.asarray(image.crop(box).resize(size.inner, Image.Resampling.LANCZOS))
    return Image.fromarray(np.pad(pixels, (*_room(size), (0, 0)), mode="symmetric"))


def _fitted_mask(alpha: masks.Mask, box: masks.Box, size: WorkingSize, soft: bool) -> masks.Mask:
    """The mask for the model: soft, or white wherever the blend takes anything at all."""
    from PIL import Image

    left, top, right, bottom = box
    part = alpha[top:bottom, left:right]
    how = Image.Resampling.BILINEAR if soft else Image.Resampling.BOX
    values = part.astype(np.float32) if soft else np.where(part > 0, np.float32(255), 0)
    scaled = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size.inner, how))
    scaled = scaled.round() if soft else np.where(scaled > 0, 255, 0)
    return np.pad(scaled.astype(np.uint8), _room(size), mode="symmetric")


def _room(size: WorkingSize) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, size.height - size.inner[1]), (0, size.width - size.inner[0])


def _by_cells(mask: masks.Mask, cell: int) -> masks.Mask:
    """Each latent's cell as white as its whitest pixel: pipelines sample one pixel of a cell, and
    would miss thin strokes."""
    height, width = mask.shape
    rows, columns = height // cell, width // cell
    if not rows or not columns or height % cell or width % cell:
        return mask
    whitest = mask.reshape(rows, cell, columns, cell).max(axis=(1, 3))
    return whitest.repeat(cell, axis=0).repeat(cell, axis=1)


def _filled(image: Image, mask: masks.Mask) -> Image:
    """The masked part grown over from its surroundings (Telea 2004)."""
    import cv2
    from PIL import Image

    if (mask > 0).all():
        return image
    pixels = np.ascontiguousarray(np.asarray(image))
    return Image.fromarray(cv2.inpaint(pixels, (mask > 0).astype(np.uint8), 3, cv2.INPAINT_TELEA))


def _full_from(alpha: masks.Mask, full: int) -> np.ndarray:
    """Weights 0 to 1 that reach 1 at the grey `full`."""
    return np.minimum(1, alpha.astype(np.float32) / full)

"""The arguments and the output of a network's call as rows, to be joined, cut and told apart.

A batch is a first dimension, wherever it stands: of a tensor, of a tensor in a list or a dict, or
the entries of a list (Z-Image takes a list of tensors with an entry per row). `Rows` takes such a
value apart into leaves and puts it together again. What it cannot take apart raises NotRows, and
that call runs as it is.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

CONSTANTS = (bool, int, float, str, type(None), torch.dtype, torch.device)


class NotRows(Exception):
    """A value whose rows cannot be told apart."""


@dataclass(frozen=True)
class Leaf:
    """One value of a call. `kind`: 'rows', a tensor with a row each in its first dimension;
    'list', a list with an entry each; 'scalar', a tensor without dimensions, the same for all rows
    of its call; 'whole', a tensor that all rows share; 'generator', handed on by pipelines, and not
    drawn from in a batch; 'constant'."""

    kind: str
    value: Any

    def shape_key(self) -> Any:
        """What has to agree for two calls to be joined, but for the contents of tensors."""
        match self.kind:
            case "rows":
                return "rows", tuple(self.value.shape[1:]), self.value.dtype
            case "list":
                entries = [_entry_key(entry) for entry in self.value]
                return "list", tuple(entries[:1] if len(set(entries)) == 1 else entries)
            case "scalar" | "generator":
                return self.kind
            case "whole":
                return "whole", tuple(self.value.shape), self.value.dtype
            case _:
                return "constant", type(self.value), self.value


def _entry_key(entry: Any) -> Any:
    if isinstance(entry, torch.Generator):
        return "generator"
    return (tuple(entry.shape), entry.dtype) if isinstance(entry, torch.Tensor) else repr(entry)


@dataclass
class Rows:
    """`count` rows: `form` is the nested structure with a number for each leaf; `listed`: the batch
    is a list, so that every list of its length has an entry per row."""

    count: int
    form: Any
    leaves: list[Leaf] = field(repr=False)
    listed: bool = False

    @classmethod
    def of_call(cls, args: tuple, kwargs: dict[str, Any]) -> Rows:
        """The arguments of a call; its first tensor, or list of tensors, tells how many rows."""
        batch = _batch(args, kwargs)
        return cls.of((args, kwargs), len(batch), isinstance(batch, (list, tuple)))

    @classmethod
    def of(cls, value: Any, count: int, listed: bool) -> Rows:
        leaves: list[Leaf] = []
        return cls(count, _take_apart(value, count, listed, leaves), leaves, listed)

    def of_output(self, value: Any) -> Rows:
        """The output of a call of these; raises NotRows where a part of it belongs to no row."""
        rows = Rows.of(value, self.count, self.listed)
        if any(leaf.kind in ("scalar", "whole") for leaf in rows.leaves):
            raise NotRows("a tensor of the output has no row for each row of the input")
        return rows

    def value(self) -> Any:
        """The nested value again."""
        return _put_together(self.form, self.leaves)

    def key(self) -> tuple:
        """Equal for calls that can be one batch, but for the contents of shared tensors."""
        return _form_key(self.form), tuple(leaf.shape_key() for leaf in self.leaves)

    def generators(self) -> list[torch.Generator]:
        values = [value for leaf in self.leaves if leaf.kind in ("generator", "list")
                  for value in (leaf.value if leaf.kind == "list" else [leaf.value])]
        return [value for value in values if isinstance(value, torch.Generator)]

    def whole_tensors(self) -> list[torch.Tensor]:
        return [leaf.value for leaf in self.leaves if leaf.kind == "whole"]

    def select(self, numbers: Sequence[int] | slice) -> Rows:
        """Some of the rows."""
        count = len(range(self.count)[numbers]) if isinstance(numbers, slice) else len(numbers)
        leaves = []
        for leaf in self.leaves:
            value = leaf.value
            if leaf.kind == "rows":
                value = value[numbers]
            elif leaf.kind == "list":
                value = value[numbers] if isinstance(numbers, slice) else [
                    value[number] for number in numbers]
            leaves.append(Leaf(leaf.kind, value))
        return Rows(count, self.form, leaves, self.listed)

    def split(self, counts: Sequence[int]) -> list[Rows]:
        """Consecutive parts."""
        parts, start = [], 0
        for count in counts:
            parts.append(self.select(slice(start, start + count)))
            start += count
        return parts

    def digests(self) -> list[bytes]:
        """A hash of each row's contents; scalars count to every row."""
        hashes = [hashlib.blake2b(digest_size=16) for _ in range(self.count)]
        for leaf in self.leaves:
            if leaf.kind == "scalar":
                contents = [tensor_bytes(leaf.value.double())] * self.count
            elif leaf.kind == "rows":
                contents = _row_bytes(leaf.value)
            elif leaf.kind == "list":
                contents = [tensor_bytes(entry) if isinstance(entry, torch.Tensor)
                            else repr(_entry_key(entry)).encode() for entry in leaf.value]
            else:
                continue
            for row_hash, content in zip(hashes, contents, strict=True):
                row_hash.update(content)
        return [row_hash.digest() for row_hash in hashes]


def join(parts: Sequence[Rows]) -> Rows:
    """One batch of calls, or of outputs, with equal keys; scalars become a vector."""
    if len(parts) == 1:
        return parts[0]
    leaves = []
    for column in zip(*(part.leaves for part in parts), strict=True):
        kind, values = column[0].kind, [leaf.value for leaf in column]
        if kind == "rows":
            leaves.append(Leaf(kind, torch.cat(values)))
        elif kind == "list":
            leaves.append(Leaf(kind, [entry for value in values for entry in value]))
        elif kind == "scalar":  # a timestep each
            vector = torch.stack(_one_dtype(values))
            counts = torch.tensor([part.count for part in parts], device=vector.device)
            leaves.append(Leaf("rows", vector.repeat_interleave(counts, output_size=int(
                sum(part.count for part in parts)))))
        else:
            leaves.append(column[0])
    return Rows(sum(part.count for part in parts), parts[0].form, leaves, parts[0].listed)


def largest_difference(one: Rows, other: Rows) -> float:
    """Of two outputs of the same rows, as a share of the largest magnitude of each tensor."""
    largest = 0.0
    for first, second in zip(one.leaves, other.leaves, strict=True):
        pairs = [(first.value, second.value)] if first.kind == "rows" else []
        if first.kind == "list":
            pairs = list(zip(first.value, second.value, strict=True))
        for a, b in pairs:
            if not isinstance(a, torch.Tensor) or not a.numel():
                continue
            if a.shape != b.shape:
                return float("inf")
            a, b = a.double(), b.double()
            if not torch.equal(a.isfinite(), b.isfinite()):
                return float("inf")
            a, b = a.nan_to_num(0, 0, 0), b.nan_to_num(0, 0, 0)
            scale = max(a.abs().max().item(), 1e-12)
            largest = max(largest, (a - b).abs().max().item() / scale)
    return largest


def _batch(args: tuple, kwargs: dict[str, Any]) -> torch.Tensor | Sequence[torch.Tensor]:
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.ndim:
            return value
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], torch.Tensor):
            return value
    raise NotRows("no argument has rows")


def _take_apart(value: Any, count: int, listed: bool, leaves: list[Leaf]) -> Any:
    if isinstance(value, torch.Tensor):
        kind = "scalar" if not value.ndim else "rows" if len(value) == count else "whole"
        return _leaf(kind, value, leaves)
    if isinstance(value, dict):  # a ModelOutput too
        parts = {name: _take_apart(part, count, listed, leaves) for name, part in value.items()}
        return _Form(type(value), parts)
    if isinstance(value, list) and _is_list_of_rows(value, count, listed):
        return _leaf("list", value, leaves)
    if isinstance(value, (list, tuple)):
        return _Form(type(value), [_take_apart(part, count, listed, leaves) for part in value])
    if isinstance(value, torch.Generator):
        return _leaf("generator", value, leaves)
    if isinstance(value, CONSTANTS):
        return _leaf("constant", value, leaves)
    if "Cache" in type(value).__name__:  # of a language model: no pipeline reads it
        return _leaf("constant", None, leaves)
    if hasattr(value, "__dict__") and any(isinstance(part, torch.Tensor)
                                          for part in vars(value).values()):
        parts = {name: _take_apart(part, count, listed, leaves)
                 for name, part in vars(value).items()}
        return _Form(value, parts)  # such as the distribution that an encoder gives
    raise NotRows(f"a {type(value).__name__} among them")


def _is_list_of_rows(value: list, count: int, listed: bool) -> bool:
    """An entry per row, rather than tensors that each have all rows (a ControlNet's residuals)."""
    return len(value) == count > 0 and (listed or not any(
        isinstance(part, torch.Tensor) and part.ndim and len(part) == count for part in value))


@dataclass(frozen=True)
class _Form:
    """A container: its type, or an object to copy, and the forms of its parts."""

    kind: Any
    parts: Any


def _leaf(kind: str, value: Any, leaves: list[Leaf]) -> int:
    leaves.append(Leaf(kind, value))
    return len(leaves) - 1


def _put_together(form: Any, leaves: list[Leaf]) -> Any:
    if isinstance(form, int):
        return leaves[form].value
    if isinstance(form.parts, list):
        parts = [_put_together(part, leaves) for part in form.parts]
        return form.kind(*parts) if hasattr(form.kind, "_fields") else form.kind(parts)
    parts = {name: _put_together(part, leaves) for name, part in form.parts.items()}
    if isinstance(form.kind, type):
        return parts if form.kind is dict else form.kind(**parts)
    whole = copy.copy(form.kind)
    vars(whole).update(parts)
    return whole


def _form_key(form: Any) -> Any:
    if isinstance(form, int):
        return form
    kind = form.kind if isinstance(form.kind, type) else type(form.kind)
    if isinstance(form.parts, list):
        return kind, tuple(_form_key(part) for part in form.parts)
    return kind, tuple((name, _form_key(part)) for name, part in form.parts.items())


def _one_dtype(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    dtypes = {value.dtype for value in values}
    if len(dtypes) == 1:
        return list(values)
    return [value.to(torch.float32) for value in values]


def tensor_bytes(tensor: torch.Tensor) -> bytes:
    """The values of a tensor of any dtype, in C order."""
    return _row_bytes(tensor[None])[0]


def _row_bytes(tensor: torch.Tensor) -> list[bytes]:
    flat = tensor.detach().reshape(len(tensor), -1).cpu()
    if not flat.numel():
        return [b""] * len(tensor)
    flat = flat.clone(memory_format=torch.contiguous_format)  # expanded ones have no strides
    return [row.numpy().tobytes() for row in flat.view(torch.uint8)]

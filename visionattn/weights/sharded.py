"""A checkpoint that several processes wrote, each its own part: a folder, read whole or region by region.

    iter_8.sharded/part-0-of-2.0.safetensors    what the first process held of every tensor that was spread over both
    iter_8.sharded/part-1-of-2.0.safetensors    what the second one held
    iter_8.sharded/rest.0.pth                   all that was not spread: plain data, and tensors that each process has
    iter_8.sharded/index.json                   which box of which tensor is in which part, and the files' sha256 sums

torch.distributed.checkpoint's own form unpickles its `.metadata` without restriction; here nothing is unpickled but
rest.pth, as every checkpoint is. The folder's own folder lists the index in its `checkpoints.sha256`.
"""

from __future__ import annotations

import json
import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionattn.weights.durable import verify, verify_sum

SUFFIX = ".sharded"
INDEX = "index.json"
FORMAT = 1
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""By their names in the safetensors format."""

Key = tuple[str | int, ...]
"""Where a value is in a nest of dicts, lists and tuples."""


@dataclass(frozen=True)
class Box:
    """The part of a tensor that begins at `offset` and has `shape`."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def common(self, other: Box) -> Box | None:
        """What both cover; None for nothing."""
        begin = [max(a, b) for a, b in zip(self.offset, other.offset, strict=True)]
        ends = zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        shape = [min(a + n, b + m) - start for (a, n, b, m), start in zip(ends, begin, strict=True)]
        return None if any(side <= 0 for side in shape) else Box(tuple(begin), tuple(shape))

    def within(self, other: Box) -> tuple[slice, ...]:
        """Where it lies in the tensor that holds just `other`."""
        starts = [a - b for a, b in zip(self.offset, other.offset, strict=True)]
        return tuple(slice(start, start + side) for start, side in zip(starts, self.shape, strict=True))


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose parts are in a sharded checkpoint; nothing of it is read until it is asked for."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    pieces: Mapping[Box, Path]
    _files: _OpenFiles = field(repr=False, compare=False)

    def whole(self) -> Tensor:
        """All of it, put together."""
        return self.region(Box((0,) * len(self.shape), tuple(self.shape)))

    def region(self, wanted: Box) -> Tensor:
        """What the box holds; no more than that is read."""
        made = torch.empty(wanted.shape, dtype=self.dtype)
        for box, file in self.pieces.items():
            common = wanted.common(box)
            if common is not None:
                made[common.within(wanted)] = self._files.read(file, self.name, common.within(box))
        return made


class _OpenFiles:
    """Safetensors files, opened once each."""

    def __init__(self) -> None:
        self._open: dict[Path, Any] = {}

    def read(self, file: Path, name: str, region: tuple[slice, ...]) -> Tensor:
        found: Tensor = self._stored(file, name)[region] if region else self._open[file].get_tensor(name)
        return found

    def kind(self, file: Path, name: str) -> tuple[tuple[int, ...], str]:
        """Shape and dtype."""
        stored = self._stored(file, name)
        return tuple(stored.get_shape()), stored.get_dtype()

    def _stored(self, file: Path, name: str) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            if file not in self._open:
                self._open[file] = safe_open(file, framework="pt")
            return self._open[file].get_slice(name)
        except SafetensorError as error:
            raise ValueError(f"{name} cannot be read from {file.name} ({error})") from error


def is_sharded(path: str | Path) -> bool:
    """Whether it is the folder of a checkpoint that several processes wrote."""
    return (Path(path) / INDEX).is_file()


def read_sharded(path: str | Path) -> dict[str, Any]:
    """All that a sharded checkpoint holds, in whole tensors on the CPU.

    Raises:
        ValueError: as of `open_sharded`.
    """
    return put_together(open_sharded(path))


def open_sharded(path: str | Path) -> dict[str, Any]:
    """What a sharded checkpoint holds, with a StoredTensor for each tensor that was spread over processes.

    Raises:
        ValueError: a file is damaged or missing, the index is none, or reading the rest would run code.
    """
    from visionattn.weights.reading import read_checkpoint

    folder = Path(path).expanduser()
    index = _verified(folder)[1]
    try:
        rest = _inside(folder, index, index["rest"])
        tensors = _tensors(folder, index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_index(folder, error) from error
    content: dict[str, Any] = mapped(
        read_checkpoint(rest), lambda value, key: tensors.pop(key, value) if value is None else value
    )
    if tensors:
        missing = "/".join(map(str, next(iter(tensors))))
        raise ValueError(f"{folder / INDEX} has {missing}, for which {rest.name} has no place")
    return content


def verify_sharded(path: str | Path) -> bool:
    """Whether the manifest of the folder's own folder lists the checkpoint, all of whose files are read.

    Raises:
        ValueError: a file is not the one that was written, or is gone.
    """
    return _verified(Path(path))[0]


def put_together(nest: Any) -> Any:
    """A nest whose StoredTensors are whole tensors."""
    return mapped(nest, lambda value, key: value.whole() if isinstance(value, StoredTensor) else value)


def mapped(nest: Any, change: Callable[[Any, Key], Any], key: Key = ()) -> Any:
    """A nest of dicts, lists and tuples with change(value, key) for each value; a state dict keeps its versions."""
    if isinstance(nest, Mapping):
        made = OrderedDict((name, mapped(value, change, (*key, name))) for name, value in nest.items())
        if hasattr(nest, "_metadata"):
            made._metadata = nest._metadata  # type: ignore[attr-defined]
        return made if isinstance(nest, OrderedDict) else dict(made)
    if isinstance(nest, list | tuple) and not isinstance(nest, torch.Size):
        return type(nest)(mapped(value, change, (*key, number)) for number, value in enumerate(nest))
    return change(nest, key)


def _verified(folder: Path) -> tuple[bool, dict[str, Any]]:
    """Whether the index is listed, and the index, when every file has been found to have its sum."""
    listed = verify(folder / INDEX, folder.parent)
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ValueError(f"its format is {index['format']!r}, this version reads {FORMAT}")
        sums = {_inside(folder, index, name): str(digest) for name, digest in index["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise _no_index(folder, error) from error
    for file, digest in sums.items():
        if not file.is_file():
            raise ValueError(f"{folder} lacks {file.name}: copy the whole folder, or take another checkpoint")
        verify_sum(file, [digest], folder / INDEX)
    return listed, index


def _no_index(folder: Path, error: Exception) -> ValueError:
    reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return ValueError(f"{folder / INDEX} is no index of a sharded checkpoint: {reason}")


def _inside(folder: Path, index: Mapping[str, Any], name: str) -> Path:
    """The path of one of the index's files."""
    if name not in index["files"] or Path(name).name != name:
        raise ValueError(f"{name!r} is no file of the folder that it lists")
    return folder / name


def _tensors(folder: Path, index: Mapping[str, Any]) -> dict[Key, StoredTensor]:
    files, found = _OpenFiles(), {}
    for entry in index["tensors"]:
        key: Key = tuple(entry["key"])
        name, shape, dtype = piece_name(key), _numbers(entry["shape"]), entry["dtype"]
        if dtype not in DTYPES:
            raise ValueError(f"{dtype!r} is no dtype")
        pieces = {}
        for piece in entry["pieces"]:
            box = Box(_numbers(piece["offset"]), _numbers(piece["shape"]))
            pieces[box] = _inside(folder, index, piece["file"])
            stored = files.kind(pieces[box], name)
            if stored != (box.shape, dtype):
                raise ValueError(f"{name} is {stored} in {piece['file']}, not {(box.shape, dtype)}")
        _refuse_holes(name, shape, list(pieces))
        found[key] = StoredTensor(name, torch.Size(shape), DTYPES[dtype], pieces, files)
    return found


def _numbers(values: Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(operator.index(value) for value in values)
    if any(number < 0 for number in numbers):
        raise ValueError(f"{list(numbers)} is no shape")
    return numbers


def _refuse_holes(name: str, shape: tuple[int, ...], boxes: Sequence[Box]) -> None:
    """Raises ValueError unless the boxes cover the shape, each place once."""
    whole = Box((0,) * len(shape), shape)
    inside = all(len(box.offset) == len(box.shape) == len(shape) and whole.common(box) == box for box in boxes)
    if (
        not inside
        or sum(box.size for box in boxes) != whole.size
        or any(a.common(b) for a, b in combinations(boxes, 2))
    ):
        raise ValueError(f"the pieces of {name} do not make up a tensor of {list(shape)}")


def piece_name(key: Key) -> str:
    """What a tensor's pieces are called in the parts."""
    return "/".join(map(str, key))

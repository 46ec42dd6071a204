"""Writing what `visionattn.weights.sharded` reads, so that a kill at any moment leaves what was there before.

Files of a checkpoint that is written over get the next number; the index, written last, is what makes them the
checkpoint. What it does not name is a killed writer's, or the previous checkpoint's, and goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from visionattn.weights.durable import remove, remove_leftovers, sha256, write_listed, write_unlisted
from visionattn.weights.sharded import DTYPES, FORMAT, INDEX, SUFFIX, Box, Key, piece_name

_OURS = re.compile(r"(?:part-\d+-of-\d+\.(\d+)\.safetensors|rest\.(\d+)\.pth)")
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Part:
    """A file that a process has written.

    Attributes:
        name: within the folder.
        digest: its sha256 sum.
        boxes: where its tensors lie in the whole ones.
    """

    name: str
    digest: str
    boxes: Mapping[Key, Box]


def next_number(folder: Path) -> int:
    """That of the files to be written: above all that lie there, also those of killed writers."""
    found = [_OURS.fullmatch(path.name) for path in folder.glob("*")]
    return 1 + max((int(match[1] or match[2]) for match in found if match), default=-1)


def write_part(
    folder: Path, number: int, process: int, processes: int, pieces: Mapping[Key, tuple[Box, Tensor]]
) -> Part:
    """Writes what one process holds, a tensor at a time: no more than one of them is copied to the CPU at once.

    Raises:
        OSError: the disk is full, the folder read-only: what was there before is as it was.
    """
    path = folder / f"part-{process}-of-{processes}.{number}.safetensors"
    tensors = {piece_name(key): tensor for key, (_, tensor) in pieces.items()}
    write_unlisted(lambda file: _write_safetensors(file, tensors), path)
    return Part(path.name, sha256(path), {key: box for key, (box, _) in pieces.items()})


def write_rest(folder: Path, number: int, content: Any) -> Part:
    """Writes what is not spread over the processes.

    Raises:
        OSError: as of `write_part`.
    """
    path = folder / f"rest.{number}.pth"
    write_unlisted(lambda file: torch.save(content, file), path)
    return Part(path.name, sha256(path), {})


def write_index(
    folder: Path, rest: Part, parts: Sequence[Part], tensors: Mapping[Key, tuple[torch.Size, torch.dtype]]
) -> None:
    """Makes the files the checkpoint: lists them, and deletes what they have replaced.

    Args:
        tensors: shape and dtype of each whole tensor.
    Raises:
        OSError: as of `write_part`.
    """
    entries = [
        {
            "key": key,
            "shape": list(shape),
            "dtype": _CODES[dtype],
            "pieces": [
                {"file": part.name, "offset": part.boxes[key].offset, "shape": part.boxes[key].shape}
                for part in parts
                if key in part.boxes
            ],
        }
        for key, (shape, dtype) in tensors.items()
    ]
    files = {part.name: part.digest for part in (rest, *parts)}
    text = json.dumps({"format": FORMAT, "rest": rest.name, "files": files, "tensors": entries})
    write_listed(lambda file: file.write(text.encode()), folder / INDEX, folder.parent)
    _remove_files(folder, set(files))


def remove_sharded(folder: str | Path) -> None:
    """Deletes a checkpoint, the index first: a kill leaves none that is half there. None there is no error."""
    folder = Path(folder)
    remove(folder / INDEX, folder.parent)
    _remove_files(folder, set())


def remove_unfinished(folder: str | Path) -> None:
    """Deletes what killed writers have left in the sharded checkpoints of a folder that nobody writes to now."""
    for checkpoint in Path(folder).glob(f"*{SUFFIX}"):
        index = checkpoint / INDEX
        if not index.is_file():
            remove_sharded(checkpoint)
            continue
        with suppress(ValueError, KeyError, TypeError):  # what it names is not known: nothing is deleted
            _remove_files(checkpoint, set(json.loads(index.read_text(encoding="utf-8"))["files"]))


def _remove_files(folder: Path, kept: set[str]) -> None:
    """Deletes our files but those kept; the folder too if nothing is left in it."""
    if not folder.is_dir():
        return
    remove_leftovers(folder)
    for path in folder.iterdir():
        if _OURS.fullmatch(path.name) and path.name not in kept:
            path.unlink(missing_ok=True)
    with suppress(OSError):  # it is not empty
        folder.rmdir()


def _write_safetensors(file: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    """The format of https://github.com/huggingface/safetensors: a header with offsets, then the bytes.

    The library's own writer wants all tensors on the CPU at once, and hides the disk's errors.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())  # keeps each aligned to its own size
    header, end = {}, 0
    for name, tensor in ordered:
        if tensor.dtype not in _CODES:
            raise TypeError(f"{name} is {tensor.dtype}, which a sharded checkpoint cannot hold")
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, tensor in ordered:
        file.writelines(_bytes(tensor))


def _bytes(tensor: Tensor) -> Iterable[Any]:
    if tensor.numel():
        yield tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data

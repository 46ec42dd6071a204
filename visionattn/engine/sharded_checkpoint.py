"""A checkpoint of a model that is spread over processes, written by all of them, each its own part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, broadcast_object_list, get_rank, get_world_size, is_main_process
from torch.distributed.tensor import DTensor

from visionattn.engine.fsdp import box_of
from visionattn.engine.plain import plain
from visionattn.weights.sharded import Key, mapped
from visionattn.weights.sharded_writing import Part, next_number, write_index, write_part, write_rest


def write_sharded(checkpoint: Mapping[str, Any], folder: Path) -> None:
    """Writes a checkpoint whose sharded tensors no process has whole; there whole or not at all.

    Every process must call it, and each writes what it holds. Of all that is not sharded the first one's is written.

    Raises:
        OSError: a process cannot write; what was there before is as it was.
    """
    tensors: dict[Key, DTensor] = {}

    def taken_out(value: Any, key: Key) -> Any:
        if not isinstance(value, DTensor):
            return value
        tensors[key] = value
        return None

    rest = mapped(checkpoint, taken_out)
    number = _agreed_number(folder)
    held = {key: (box_of(tensor), tensor.to_local()) for key, tensor in tensors.items() if _is_first_holder(tensor)}
    pieces = {key: piece for key, piece in held.items() if piece[0].size}
    parts = _by_all(lambda: write_part(folder, number, get_rank(), get_world_size(), pieces), folder)
    if is_main_process():
        if not all((folder / part.name).is_file() for part in parts):
            raise _not_shared(folder)
        written = write_rest(folder, number, plain(rest, "checkpoint"))
        write_index(folder, written, parts, {key: (value.shape, value.dtype) for key, value in tensors.items()})


def _is_first_holder(tensor: DTensor) -> bool:
    """Whether no process of a lower rank holds the same part."""
    placements = enumerate(tensor.placements)
    return all(placement.is_shard() or not tensor.device_mesh.get_local_rank(dim) for dim, placement in placements)


def _agreed_number(folder: Path) -> int:
    """The first process's number for the files, in a folder that is there."""
    agreed: list[Any] = [None]
    if is_main_process():
        folder.mkdir(parents=True, exist_ok=True)
        agreed = [next_number(folder)]
    broadcast_object_list(agreed)
    if not folder.is_dir():
        raise _not_shared(folder)
    number: int = agreed[0]
    return number


def _by_all(write: Callable[[], Part], folder: Path) -> list[Part]:
    """What every process has written, by rank; nothing of it is left if one could not.

    Raises:
        OSError: one of them could not.
    """
    mine: Part | OSError
    try:
        mine = write()
    except OSError as error:
        mine = error
    everyones: list[Part | OSError] = all_gather_object(mine)
    failed = [(rank, other) for rank, other in enumerate(everyones) if isinstance(other, OSError)]
    if isinstance(mine, OSError):
        raise mine
    if failed:
        (folder / mine.name).unlink(missing_ok=True)
        rank, theirs = failed[0]
        raise OSError(theirs.errno, f"process {rank}: {theirs.strerror}", theirs.filename)
    return [part for part in everyones if isinstance(part, Part)]


def _not_shared(folder: Path) -> FileNotFoundError:
    return FileNotFoundError(
        f"the processes do not all see {folder}: a sharded checkpoint needs a work dir on a file system that they share"
    )

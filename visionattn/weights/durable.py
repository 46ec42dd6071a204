"""Files that are there whole or not at all, whenever the process, the machine or the disk gives up.

A folder's `checkpoints.sha256` has a line for each file written here, in the form that `sha256sum -c` reads. Where a
file is written over, its new line is added before the file takes its name and the old one is dropped afterwards: at
every moment the file that lies there is one of those listed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

MANIFEST = "checkpoints.sha256"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def save_durably(content: Any, path: str | Path) -> None:
    """`torch.save`, whole or not at all, and listed in the folder's manifest.

    Raises:
        OSError: the disk is full, the folder read-only or gone; what was at `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_listed(lambda file: torch.save(content, file), path, path.parent)


def write_listed(write: Callable[[IO[bytes]], object], path: Path, folder: Path) -> None:
    """A file that `write` writes, whole or not at all, and listed in the manifest of `folder`, in or below which it is.

    Raises:
        OSError: as of `save_durably`.
    """
    temporary, name = _temporary(path), path.relative_to(folder).as_posix()
    _write(temporary, path, write)
    try:
        digest = sha256(temporary)
        listed = read_manifest(folder)
        listed[name] = [*listed.pop(name, []), digest]
        _write_manifest(folder, listed)
    except BaseException:
        _discard(temporary)
        raise
    _put_in_place(temporary, path)
    if len(listed[name]) > 1:
        _write_manifest(folder, {**listed, name: [digest]})


def write_unlisted(write: Callable[[IO[bytes]], object], path: Path) -> None:
    """A file that `write` writes, whole or not at all, and that no manifest lists.

    Raises:
        OSError: as of `save_durably`.
    """
    _write(_temporary(path), path, write)
    _put_in_place(_temporary(path), path)


def write_text_durably(text: str, path: str | Path) -> None:
    """A small text file, whole or not at all.

    Raises:
        OSError: as of `save_durably`.
    """
    write_unlisted(lambda file: file.write(text.encode()), Path(path))


def remove(path: str | Path, folder: Path | None = None) -> None:
    """Deletes a file that was written here, and its line; none there is no error.

    Args:
        folder: whose manifest lists it; its own if None.
    """
    path = Path(path)
    path.unlink(missing_ok=True)
    folder = folder or path.parent
    listed = read_manifest(folder)
    if listed.pop(path.relative_to(folder).as_posix(), None) is not None:
        _write_manifest(folder, listed)


def remove_leftovers(folder: str | Path) -> None:
    """Deletes what writers that were killed have left in a folder that nobody writes to now."""
    for file in Path(folder).glob(".*.tmp"):
        file.unlink(missing_ok=True)


def read_manifest(folder: str | Path) -> dict[str, list[str]]:
    """The sha256 sums that a folder's files may have, by name, in the order of their writing."""
    listed: dict[str, list[str]] = {}
    path = Path(folder) / MANIFEST
    for line in path.read_text().splitlines() if path.is_file() else ():
        found = _LINE.fullmatch(line)
        if found:
            listed.setdefault(found[2], []).append(found[1])
    return listed


def verify(path: str | Path, folder: Path | None = None) -> bool:
    """Whether the folder's manifest lists the file; one that is listed is read and must have its sum.

    Args:
        folder: whose manifest that is; the file's own if None.
    Raises:
        ValueError: the file is not the one that was written.
    """
    path = Path(path)
    folder = folder or path.parent
    expected = read_manifest(folder).get(path.relative_to(folder).as_posix())
    if expected is None:
        return False
    verify_sum(path, expected, folder / MANIFEST)
    return True


def verify_sum(path: Path, expected: Sequence[str], listed_in: Path) -> None:
    """Raises ValueError if the file's sum is none of those that `listed_in` has for it."""
    found = sha256(path)
    if found not in expected:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., {listed_in} has {expected[-1][:12]}...; "
            "take another checkpoint (--resume auto takes the newest good one)"
        )


def sha256(path: str | Path) -> str:
    """The file's sum, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _write_manifest(folder: Path, listed: Mapping[str, list[str]]) -> None:
    lines = [f"{digest}  {name}\n" for name, digests in listed.items() for digest in digests]
    write_text_durably("".join(lines), folder / MANIFEST)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _write(temporary: Path, path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Writes the temporary file to the disk itself; on failure it is gone."""
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        _discard(temporary)
        cause = _system_error(error)
        if cause is None:
            raise
        raise _named(cause, path) from error


def _put_in_place(temporary: Path, path: Path) -> None:
    try:
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name itself is on the disk only now
        finally:
            os.close(folder)
    except OSError as error:
        _discard(temporary)
        raise _named(error, path) from error


def _discard(temporary: Path) -> None:
    with suppress(OSError):  # a disk that refuses to write may refuse to delete
        temporary.unlink(missing_ok=True)


def _system_error(error: BaseException | None) -> OSError | None:
    """The OSError that torch's writer may have wrapped."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _named(error: OSError, path: Path) -> OSError:
    reason = error.strerror or os.strerror(error.errno or errno.EIO)
    return OSError(error.errno or errno.EIO, f"{reason}; not written, what was there before is as it was", str(path))

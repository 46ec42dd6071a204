"""Folders of made-up data: each is written once, appears when it is complete, and says how it was made."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

RECORD = "made_up.json"
"""The file that says with which arguments a folder was made."""


def make_folder(out: Path | str, record: Mapping[str, object], write: Callable[[Path], None]) -> Path:
    """The folder `out`, filled by `write`; one that was made with the same record is left as it is.

    Args:
        out: made with its parents; may exist and be empty.
        record: all that its content depends on, as json has it.
        write: fills the folder that it is given, which becomes `out` when it is done; also if another process has
            meanwhile done the same.
    Raises:
        FileExistsError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    folder = Path(out).resolve()  # a link is followed: the rename has to meet the folder itself
    if is_made(folder, record):
        return Path(out)
    partial = folder.parent / f".{folder.name}.partial-{uuid.uuid4().hex[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        (partial / RECORD).write_text(json.dumps(record) + "\n")
        if not is_made(folder, record):
            _move(partial, folder, record)
    except OSError as error:
        if str(partial) not in str(error):
            raise
        raise OSError(error.errno, error.strerror or "cannot be written; is the disk full?", str(out)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Path(out)


def is_made(out: Path, record: Mapping[str, object]) -> bool:
    """Whether `out` was made with this record; False if there is nothing yet.

    Raises:
        FileExistsError: it holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise FileExistsError(f"{out} is a file; made-up scenes need a folder of their own")
    if not (out / RECORD).is_file():
        raise FileExistsError(f"{out} is not empty and was not made here; choose another folder")
    found = json.loads((out / RECORD).read_text())
    if found != record:
        given = ", ".join(f"{key}={value}" for key, value in found.items())
        raise FileExistsError(
            f"{out} holds scenes made with other arguments ({given}); choose another folder or remove it"
        )
    return True


def whole_number(name: str, number: object, least: int) -> int:
    """The number.

    Raises:
        ValueError: it is not whole, or below `least`.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise ValueError(f"{name}={number!r} must be a whole number of {least} or more")
    return number


def _move(partial: Path, out: Path, record: Mapping[str, object]) -> None:
    try:
        os.rename(partial, out)  # replaces an empty folder
    except OSError:
        if not is_made(out, record):  # another process may have been first
            raise

"""Which errors are answers to a user, and their one line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import visionattn

_ANSWERS = (AssertionError, ImportError, KeyError, OSError, TypeError, ValueError)
_UNKNOWN_TYPE = re.compile(r"(.* is not in the .* registry)\. Please check")


def as_answer(error: Exception) -> str | None:
    """The error in one line; None if it was not raised to tell a user something, and its traceback is worth seeing.

    An answer is raised by this package (also in a loader's worker), names a file that the system refuses, or comes up
    while mmengine's registry builds what a config says.
    """
    if not isinstance(error, _ANSWERS):
        return None
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.strerror}: {error.filename}"
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if "\nOriginal Traceback" in text:  # torch's copy of a worker's error: the whole traceback is the message
        files = re.findall(r'^  File "(.+?)", line ', text, re.MULTILINE)
        text = text.strip().rpartition("\n")[2].partition(": ")[2]
    ours = bool(files) and Path(files[-1]).is_relative_to(Path(visionattn.__file__).parent)
    building = any(Path(file).parts[-3:-1] == ("mmengine", "registry") for file in files)
    line = " ".join(text.split())
    if not line or not (ours or building):
        return None
    unknown = _UNKNOWN_TYPE.match(line)
    if unknown:
        return f"{unknown[1]}; check the name, or import what registers it by custom_imports"
    return line if ours else f"{line} (--debug shows where)"

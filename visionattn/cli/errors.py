"""Which errors are answers to a user, and their one line."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import visionattn

_ANSWERS = (AssertionError, FileNotFoundError, ImportError, KeyError, TypeError, ValueError)
_UNKNOWN_TYPE = re.compile(r"(.* is not in the .* registry)\. Please check")


def as_answer(error: Exception) -> str | None:
    """The error in one line; None if it was not raised to tell a user something, and its traceback is worth seeing.

    An answer is raised by this package, or while mmengine's registry builds what a config says.
    """
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if not isinstance(error, _ANSWERS) or not frames:
        return None
    ours = frames[-1].is_relative_to(Path(visionattn.__file__).parent)
    building = any(frame.parts[-3:-1] == ("mmengine", "registry") for frame in frames)
    if not (ours or building):
        return None
    line = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    unknown = _UNKNOWN_TYPE.match(line)
    if unknown:
        return f"{unknown[1]}; check the name, or import what registers it by custom_imports"
    return line if ours else f"{line or type(error).__name__} (--debug shows where)"

"""Names for files of one run."""

from __future__ import annotations

from pathlib import Path


def free_path(path: Path, taken: set[Path]) -> Path:
    """`path`, or with a number where two of a run have one name; then it is taken."""
    free, number = path, 1
    while free in taken:
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    taken.add(free)
    return free

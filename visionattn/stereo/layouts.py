"""How data sets lay out the files of a pair: what all layouts share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from visionattn.stereo.samples import PairFiles

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".ppm")


class Listing(NamedTuple):
    """The pairs of a data set.

    Attributes:
        pairs: those whose files are all there, in the data set's order.
        missing: the files that others lack, in that order.
        total: how many pairs there would be if nothing was missing.
        sizes: of each part of the data set, how many pairs were found and how many the whole of it has.
    """

    pairs: list[PairFiles]
    missing: list[str]
    total: int
    sizes: dict[str, tuple[int, int]] = {}


def listing(candidates: Iterable[PairFiles], sizes: Mapping[str, tuple[int, int]] | None = None) -> Listing:
    """Tells complete pairs from those that lack a file; each folder is read once."""
    folders: dict[str, set[str]] = {}
    pairs, missing, total = [], [], 0
    for files in candidates:
        gone = [path for path in files.all_files() if not _is_there(path, folders)]
        missing += gone
        total += 1
        if not gone:
            pairs.append(files)
    return Listing(pairs, missing, total, dict(sizes or {}))


def view_names(left: Path, right: Path, ending: str = "") -> list[str]:
    """The names of the images in either folder, sorted: an image without its other view is missed, not passed over.

    Args:
        ending: what they end in; any image if "".
    """
    names = {
        name
        for folder in (left, right)
        if folder.is_dir()
        for name in os.listdir(folder)
        if name.lower().endswith(ending)
    }
    return sorted(name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def view_folders(root: Path) -> Iterator[str]:
    """Paths below root, sorted, of the folders that hold `left` or `right`; "." is root itself."""
    found = []
    for parent, folders, _ in os.walk(root, followlinks=True):
        if "left" in folders or "right" in folders:
            found.append(Path(parent).relative_to(root).as_posix())
            folders[:] = [folder for folder in folders if folder not in ("left", "right")]
    yield from sorted(found)


def scenes(root: Path) -> list[str]:
    """The names of the folders in root, sorted."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir())


def if_there(path: Path) -> str | None:
    """The path, if such a file exists: of what not every copy of a data set has."""
    return str(path) if path.is_file() else None


def need_folder(path: Path, what: str, advice: str) -> Path:
    """The path itself.

    Raises:
        FileNotFoundError: it is no folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{what}: no folder {path}; {advice}")
    return path


def _is_there(path: str, folders: dict[str, set[str]]) -> bool:
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = _names_in(folder) if os.path.isdir(folder) else set()
    return name in folders[folder]


def _names_in(folder: str) -> set[str]:
    """What the folder holds, without links that lead nowhere: no file is asked for by itself."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.is_symlink() or os.path.exists(entry.path)}

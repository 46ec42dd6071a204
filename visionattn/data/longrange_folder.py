"""Folders of pictures in which a pixel's class lies far from it: data for the long-range tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.made_up_folder import make_folder, whole_number
from visionattn.data.majority_pictures import compose_majority, draw_majority
from visionattn.data.pathfinder_pictures import compose_pathfinder, draw_pathfinder

Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]

_RENDERER = 1  # raised when the same arguments make other pictures
_SPLITS = ("training", "validation")


def write_pathfinder(
    out: Path | str,
    *,
    train: int = 3000,
    val: int = 200,
    seed: int = 0,
    size: tuple[int, int] = (96, 96),
    curves: int = 3,
    hues: int = 3,
) -> Path:
    """The folder `out`, filled with pictures of curves (`pathfinder_pictures`).

        out/images/training/00000.png ...          out/images/validation/00000.png ...
        out/masks/training/00000.png ...           (8 bit: PATHFINDER_CLASSES, 255 not evaluated)

    A picture depends on seed, split and number alone: more of them leave the first ones as they are. The folder appears
    when it is complete; one that was made with the same arguments is left as it is, also by another process meanwhile.

    Args:
        out: made with its parents; may exist and be empty.
        train, val: numbers of pictures.
        seed: 0 or more.
        size, curves, hues: as of `compose_pathfinder`.
    Raises:
        ValueError: an argument's value.
        FileExistsError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    record = {"task": "pathfinder", "size": list(size), "curves": curves, "hues": hues}

    def draw(rng: np.random.Generator) -> Drawn:
        return draw_pathfinder(compose_pathfinder(rng, size, curves, hues))

    return _write(out, draw, record, train, val, seed)


def write_majority(
    out: Path | str,
    *,
    train: int = 3000,
    val: int = 200,
    seed: int = 0,
    size: tuple[int, int] = (96, 96),
    discs: int = 6,
    marks: int = 9,
) -> Path:
    """The folder `out`, filled with pictures of votes (`majority_pictures`); else as `write_pathfinder`.

    Args:
        size, discs, marks: as of `compose_majority`.
    """
    record = {"task": "majority", "size": list(size), "discs": discs, "marks": marks}

    def draw(rng: np.random.Generator) -> Drawn:
        return draw_majority(compose_majority(rng, size, discs, marks))

    return _write(out, draw, record, train, val, seed)


def picture_generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Of one picture's random numbers."""
    return np.random.default_rng([seed, _SPLITS.index(split), index])


def _write(
    out: Path | str,
    draw: Callable[[np.random.Generator], Drawn],
    record: Mapping[str, Any],
    train: int,
    val: int,
    seed: int,
) -> Path:
    counts = {"training": whole_number("train", train, 1), "validation": whole_number("val", val, 1)}
    whole_number("seed", seed, 0)

    def fill(root: Path) -> None:
        for split, count in counts.items():
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True)
            for index in range(count):
                image, labels = draw(picture_generator(seed, split, index))
                for kind, pixels in (("images", image[..., ::-1]), ("masks", labels)):
                    path = root / kind / split / f"{index:05d}.png"
                    if not cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]):
                        raise OSError(f"{path} could not be written; is the disk full?")

    draw(picture_generator(seed, "training", 0))  # bad arguments are refused before a folder is begun
    return make_folder(out, {"renderer": _RENDERER, **record, "train": train, "val": val, "seed": seed}, fill)

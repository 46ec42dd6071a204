"""Made-up scenes in the layout of ADE20K (ADEChallengeData2016): data to learn from where there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from visionattn.data.made_up_folder import RECORD, make_folder, whole_number
from visionattn.data.scene_drawing import render_scene
from visionattn.data.scenes import SCENE_CLASSES, SCENE_PALETTE, SMALLEST_SIDE

__all__ = ["SCENE_CLASSES", "SCENE_PALETTE", "render_scene", "write_ade20k"]

_RENDERER = 4  # raised when the same arguments make other pictures
_SPLITS = (("training", "ADE_train", 0), ("validation", "ADE_val", 1))


def write_ade20k(
    out: Path | str, *, train: int = 600, val: int = 100, seed: int = 0, size: tuple[int, int] = (128, 128)
) -> Path:
    """The folder `out`, filled with made-up scenes as ADEChallengeData2016 is with photographs.

        out/images/training/ADE_train_00000001.jpg ...          out/images/validation/ADE_val_00000001.jpg ...
        out/annotations/training/ADE_train_00000001.png ...     (8 bit: 0 not evaluated, then SCENE_CLASSES)
        out/objectInfo150.txt                                   names, shares of the pixels, images they occur in

    A scene depends on seed, split and number alone: more images leave the first ones as they are. The folder appears
    when it is complete; one that was made with the same arguments is left as it is, also by another process meanwhile.

    Args:
        out: made with its parents; may exist and be empty.
        train, val: numbers of images.
        seed: 0 or more.
        size: height and width of each image in pixels.
    Raises:
        ValueError: an argument's value.
        FileExistsError: `out` holds something else.
        OSError: `out` cannot be written.
    """
    record = _checked(train, val, seed, size)
    return make_folder(out, record, lambda root: _write_tree(root, train, val, seed, size))


def is_written(root: Path | str) -> bool:
    """Whether there are made-up scenes in `root`.

    Raises:
        FileExistsError: an earlier version drew them, with other classes.
    """
    record = Path(root) / RECORD
    if not record.is_file():
        return False
    if json.loads(record.read_text()).get("renderer") != _RENDERER:
        raise FileExistsError(f"{root} holds made-up scenes of an earlier version; remove the folder to have new ones")
    return True


def _checked(train: int, val: int, seed: int, size: tuple[int, int]) -> dict[str, object]:
    """The record of a folder with these arguments."""
    for name, number, least in (("train", train, 1), ("val", val, 1), ("seed", seed, 0)):
        whole_number(name, number, least)
    sides = list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or any(not isinstance(side, int) or side < SMALLEST_SIDE for side in sides):
        raise ValueError(f"size={size!r} must be (height, width) of {SMALLEST_SIDE} pixels or more; 128, 128 is usual")
    return {"renderer": _RENDERER, "train": train, "val": val, "seed": seed, "size": sides}


def _write_tree(root: Path, train: int, val: int, seed: int, size: tuple[int, int]) -> None:
    pixels = np.zeros(len(SCENE_CLASSES) + 1, np.int64)
    images = {split: np.zeros(len(SCENE_CLASSES) + 1, np.int64) for split, _, _ in _SPLITS}
    for (split, prefix, code), count in zip(_SPLITS, (train, val), strict=True):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(1, count + 1):
            image, labels = render_scene(np.random.default_rng([seed, code, index]), size)
            stem = f"{prefix}_{index:08d}"
            _write(root / "images" / split / f"{stem}.jpg", image[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, 95)
            _write(root / "annotations" / split / f"{stem}.png", labels, cv2.IMWRITE_PNG_COMPRESSION, 3)
            counts = np.bincount(labels.ravel(), minlength=len(pixels))
            pixels += counts
            images[split] += counts > 0
    rows = ["Idx\tRatio\tTrain\tVal\tName"]
    for label, name in enumerate(SCENE_CLASSES, start=1):
        ratio = pixels[label] / pixels.sum()
        rows.append(f"{label}\t{ratio:.4f}\t{images['training'][label]}\t{images['validation'][label]}\t{name}")
    (root / "objectInfo150.txt").write_text("\n".join(rows) + "\n")


def _write(path: Path, array: np.ndarray, option: int, value: int) -> None:
    if not cv2.imwrite(str(path), array, [option, value]):
        raise OSError(f"{path} could not be written; is the disk full?")

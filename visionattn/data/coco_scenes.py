"""Made-up scenes in the layout of COCO's instances: data to learn detection from where there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.coco_objects import OBJECT_CLASSES, FoundObject, compose_objects, objects_in
from visionattn.data.made_up_folder import make_folder, whole_number
from visionattn.data.scene_drawing import draw_scene
from visionattn.data.scenes import SMALLEST_SIDE

CATEGORY_IDS = (1, 2, 3, 5, 8, 13, 21, 34)
"""With gaps, as COCO's."""

_RENDERER = 1  # raised when the same arguments make other pictures or annotations
_SPLITS = (("train", 2), ("val", 3))  # not the numbers of ade20k's scenes


def write_coco(
    out: Path | str, *, train: int = 400, val: int = 80, seed: int = 0, size: tuple[int, int] = (192, 256)
) -> Path:
    """The folder `out`, filled with made-up scenes as COCO is with photographs.

        out/train/000000000001.jpg ...                     out/val/000000000001.jpg ...
        out/annotations/instances_train.json               out/annotations/instances_val.json

    Eight classes under ids with gaps; polygons of objects that are seen whole, compressed run lengths of those that are
    partly hidden, plain run lengths of crowds; images without an object. A scene depends on seed, split and number
    alone: more images leave the first ones as they are. The folder appears when it is complete; one that was made with
    the same arguments is left as it is.

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
    whole_number("train", train, 1), whole_number("val", val, 1), whole_number("seed", seed, 0)
    sides = list(size) if isinstance(size, Sequence) else []
    if len(sides) != 2 or any(not isinstance(side, int) or side < SMALLEST_SIDE for side in sides):
        raise ValueError(f"size={size!r} must be (height, width) of {SMALLEST_SIDE} pixels or more; 192, 256 is usual")
    record = {"layout": "coco", "renderer": _RENDERER, "train": train, "val": val, "seed": seed, "size": sides}

    def write(root: Path) -> None:
        (root / "annotations").mkdir(parents=True)
        for (split, code), count in zip(_SPLITS, (train, val), strict=True):
            (root / split).mkdir()
            _write_split(root, split, code, count, seed, (sides[0], sides[1]))

    return make_folder(out, record, write)


def _write_split(root: Path, split: str, code: int, count: int, seed: int, size: tuple[int, int]) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(1, count + 1):
        composed = compose_objects(np.random.default_rng([seed, code, index]), size)
        image, _ = draw_scene(composed.scene)
        name = f"{index:012d}.jpg"
        if not cv2.imwrite(str(root / split / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OSError(f"{root / split / name} could not be written; is the disk full?")
        images.append({"id": index, "file_name": name, "height": size[0], "width": size[1], "license": 1})
        for one in objects_in(composed):
            annotations.append({"id": len(annotations) + 1, "image_id": index, **_annotation(one)})
    categories = [
        {"id": number, "name": name, "supercategory": "object"}
        for number, name in zip(CATEGORY_IDS, OBJECT_CLASSES, strict=True)
    ]
    content = {
        "info": {"description": "made-up scenes", "version": str(_RENDERER)},
        "licenses": [{"id": 1, "name": "none needed", "url": ""}],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content) + "\n")


def _annotation(one: FoundObject) -> dict[str, Any]:
    rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    return {
        "category_id": CATEGORY_IDS[OBJECT_CLASSES.index(one.name)],
        "bbox": [float(side) for side in box],
        "area": int(np.count_nonzero(one.mask)),
        "iscrowd": int(one.crowd),
        "segmentation": _segmentation(one),
    }


def _segmentation(one: FoundObject) -> Any:
    if one.crowd:
        return {"size": list(one.mask.shape), "counts": run_lengths(one.mask)}
    if one.whole:
        return outline_polygons(one.mask)
    from pycocotools import mask as rle

    coded = rle.encode(np.asfortranarray(one.mask.astype(np.uint8)))
    return {"size": list(one.mask.shape), "counts": coded["counts"].decode()}


def outline_polygons(mask: NDArray[np.bool_]) -> list[list[float]]:
    """COCO's polygons [x, y, x, y, ...] of a mask [H, W] without holes, along its pixels' edges, to 1/8 of a pixel."""
    fine = mask.astype(np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((outline[:, 0] + 0.5) / 4).ravel().tolist() for outline in outlines]


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's plain run lengths of a mask [H, W]: columns from the left, each from the top; zeros, ones, zeros, ..."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels)) + 1
    begin = [0] if pixels[0] else []  # a mask that begins with ones has no zeros first
    return [*begin, *np.diff([0, *changes, pixels.size]).tolist()]

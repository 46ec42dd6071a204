"""What is taken for what: objects found as another class, missed, or found where there are none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SCORE = 0.3
"""The least score of a box that counts."""
OVERLAP = 0.5
"""The least overlap (IoU) of a box with the object that it stands for."""


def confusion_counts(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], categories: Sequence[int]
) -> np.ndarray:
    """Boxes by the class of the object (row) and the class that was found (column), int64 [K + 1, K + 1].

    The last row and column are "nothing": what was found where there is no object, and objects that were missed. First
    each box, by falling score, takes the free object of its own class that it covers best; what is left over then takes
    the free object of any class. So an object that is found as what it is counts once as found, and a second box on it
    as one on nothing. A box on a crowd of its class counts nowhere.

    Args:
        truth: as COCO's json has it.
        results: of each image `image_id`, `labels`, `score`, `bbox` ([left, top, width, height] each).
        categories: id of every label.
    """
    labels = {category: label for label, category in enumerate(categories)}
    objects: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for one in truth["annotations"]:
        if one["category_id"] in labels:
            objects[one["image_id"]].append(one)
    counts = np.zeros((len(categories) + 1,) * 2, np.int64)
    for result in results:
        _count(counts, result, objects[result["image_id"]], labels)
    return counts


def _count(
    counts: np.ndarray, result: Mapping[str, Any], annotations: list[Mapping[str, Any]], labels: Mapping[int, int]
) -> None:
    """Adds an image."""
    nothing = len(counts) - 1
    scores = np.asarray(result["score"], np.float64)
    order = [index for index in np.argsort(-scores, kind="stable") if scores[index] >= SCORE]
    boxes = np.asarray(result["bbox"], np.float64).reshape(-1, 4)[order]
    found = np.asarray(result["labels"], np.int64)[order]
    single = [one for one in annotations if not one.get("iscrowd")]
    crowds = [one for one in annotations if one.get("iscrowd")]
    true = np.array([labels[one["category_id"]] for one in single], np.int64)
    overlap = _overlaps(boxes, single)
    taken: dict[int, int] = {}  # object -> box
    for same_class in (True, False):
        for box in range(len(boxes)):
            if box in taken.values():
                continue
            free = overlap[box] >= OVERLAP
            free[list(taken)] = False
            if same_class:
                free &= true == found[box]
            if free.any():
                taken[int(np.where(free, overlap[box], -1).argmax())] = box
    for number, label in enumerate(true):
        counts[label, found[taken[number]] if number in taken else nothing] += 1
    inside = _overlaps(boxes, crowds)
    kinds = np.array([labels[one["category_id"]] for one in crowds], np.int64)
    for box, label in enumerate(found):
        if box not in taken.values() and not ((inside[box] >= OVERLAP) & (kinds == label)).any():
            counts[nothing, label] += 1


def _overlaps(boxes: np.ndarray, annotations: list[Mapping[str, Any]]) -> np.ndarray:
    """[boxes, annotations]: intersection over union, over the box alone for crowds."""
    from pycocotools import mask as codec

    if not len(boxes) or not annotations:
        return np.zeros((len(boxes), len(annotations)))
    there = np.array([one["bbox"] for one in annotations], np.float64)
    return np.asarray(codec.iou(boxes, there, [int(bool(one.get("iscrowd"))) for one in annotations]))

"""LVIS's average precision (Gupta et al., CVPR 2019), by faster-coco-eval, class by class.

The rule is that of lvis-dataset/lvis-api (04e89fd, read, not copied), as a loop of the tests says it again. A class is
evaluated on the images that the annotations speak of it in, those that show it and those in whose `neg_category_ids` it
is: the library's table of every class in every image, 24 million pairs for LVIS's val split, is never made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from visionattn.detection.coco_scores import (
    AREAS,
    CocoScores,
    IoUType,
    class_scores,
    completed,
    copied,
    mean_of_defined,
    number_of_objects,
    silent,
)
from visionattn.detection.lvis_json import FREQUENCIES, federated_lack

LVIS_FIGURES = (
    "AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR300", "ARs", "ARm", "ARl",
)  # fmt: skip
MOST = 300
"""Detections of an image that count, over all classes."""


def lvis_scores(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_type: IoUType,
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
) -> CocoScores:
    """The figures of results on images whose truth is federated; classes have "AR300" in the place of "AR100".

    Of an image the 300 detections of the highest scores count. One of a class that the image's annotations do not speak
    of is left out, and one without its object counts neither way where the class is in `not_exhaustive_category_ids`.

    Args:
        truth: as LVIS's json has it, see `lvis_json`.
        results, iou_type, image_ids, category_ids: as of `coco_scores`.
    Raises:
        ValueError: a truth that is not LVIS's; results of an image that it does not have.
    """
    lack = federated_lack(truth)
    if lack is not None:
        raise ValueError(f"the truth is not LVIS's: {lack}; CocoMetric evaluates COCO's")
    truth = completed(truth)
    counted = {image["id"] for image in truth["images"]}
    unknown = {result["image_id"] for result in results} - counted
    if unknown:
        raise ValueError(f"results of image {min(unknown)}, which the truth does not have")
    counted = counted if image_ids is None else set(image_ids)
    frequency = {category["id"]: category["frequency"] for category in truth["categories"]}
    category_ids = sorted(frequency if category_ids is None else set(category_ids))
    objects = number_of_objects(truth, sorted(counted))
    if results:
        precision, recall = _arrays(truth, results, iou_type, counted, category_ids)
        groups = [frequency[category] for category in category_ids]
        figures = _figures(precision, recall, groups)
    else:
        precision, recall = np.zeros((10, 101, len(category_ids), 4)), np.zeros((10, len(category_ids), 4))
        figures = dict.fromkeys(LVIS_FIGURES, 0.0)
    classes = {
        category: class_scores(precision[:, :, index, 0], recall[:, index, 0], objects.get(category, 0), "AR300")
        for index, category in enumerate(category_ids)
    }
    return CocoScores(figures, classes, precision[:, :, :, 0])


def _arrays(
    truth: dict[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_type: IoUType,
    counted: set[int],
    category_ids: Sequence[int],
) -> tuple[np.ndarray, np.ndarray]:
    """Precision [10, 101, classes, 4 areas] and recall [10, classes, 4]; -1 where there is no object."""
    from faster_coco_eval import COCO, COCOeval_faster

    known = COCO(truth)
    made = COCOeval_faster(
        known, known.loadRes(_best(results)), iou_type, print_function=silent, lvis_style=True
    )  # marks the results of not_exhaustive_category_ids
    made.params.maxDets = [MOST]
    precision, recall = -np.ones((10, 101, len(category_ids), 4)), -np.ones((10, len(category_ids), 4))
    showing, spoken_of = _images_by_class(truth, counted)
    for index, category in enumerate(category_ids):
        if not showing[category]:
            continue
        made.params.imgIds, made.params.catIds = sorted(showing[category] | spoken_of[category]), [category]
        made.evaluate()
        made.accumulate()
        precision[:, :, index] = np.asarray(made.eval["precision"])[:, :, 0, :, -1]
        recall[:, index] = np.asarray(made.eval["recall"])[:, 0, :, -1]
    return precision, recall


def _best(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies of the 300 of each image with the highest scores; of equal ones, those that came first."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in copied(results):
        by_image[result["image_id"]].append(result)
    return [
        one for some in by_image.values() for one in sorted(some, key=lambda one: one["score"], reverse=True)[:MOST]
    ]


def _images_by_class(
    truth: Mapping[str, Any], counted: set[int]
) -> tuple[defaultdict[int, set[int]], defaultdict[int, set[int]]]:
    """Ids of the images that show a class, and of those that do not."""
    showing: defaultdict[int, set[int]] = defaultdict(set)
    without: defaultdict[int, set[int]] = defaultdict(set)
    for annotation in truth["annotations"]:
        if annotation["image_id"] in counted:
            showing[annotation["category_id"]].add(annotation["image_id"])
    for image in truth["images"]:
        if image["id"] in counted:
            for category in image["neg_category_ids"]:
                without[category].add(image["id"])
    return showing, without


def _figures(precision: np.ndarray, recall: np.ndarray, groups: Sequence[str]) -> dict[str, float]:
    of_all = precision[:, :, :, 0]
    return {
        "AP": mean_of_defined(of_all),
        "AP50": mean_of_defined(of_all[0]),
        "AP75": mean_of_defined(of_all[5]),
        **{f"AP{size}": mean_of_defined(precision[:, :, :, area]) for size, area in AREAS.items()},
        **{f"AP{group}": mean_of_defined(of_all[:, :, [one == group for one in groups]]) for group in FREQUENCIES},
        "AR300": mean_of_defined(recall[:, :, 0]),
        **{f"AR{size}": mean_of_defined(recall[:, :, area]) for size, area in AREAS.items()},
    }

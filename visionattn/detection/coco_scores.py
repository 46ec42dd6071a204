"""COCO's average precision and recall (Lin et al., ECCV 2014; cocodataset/cocoapi), by the libraries that compute them.

faster-coco-eval matches in C++; pycocotools is the reference. Both give the same arrays here, and the twelve figures
are taken from these by one code. Tests compare both with the figures that cocoapi publishes.
"""

from __future__ import annotations

import contextlib
import gc
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
IoUType = Literal["bbox", "segm"]
Tool = Literal["faster_coco_eval", "pycocotools"]

_HALF, _THREE_QUARTERS = 0, 5  # of the ten overlaps 0.5, 0.55, ... 0.95
AREAS = {"s": 1, "m": 2, "l": 3}  # behind all sizes


@dataclass(frozen=True)
class CocoScores:
    """What COCO's or LVIS's evaluation says of a data set.

    Attributes:
        figures: of `FIGURES`, 0 to 1; -1 where the truth has no object of that size. LVIS's are `LVIS_FIGURES`.
        classes: category id -> "AP", "AP50", "AR100" (nan without an object) and "objects" in the truth, crowds left
            out. LVIS's have "AR300".
        precision: [10 overlaps from 0.5 to 0.95, 101 recalls from 0 to 1, classes], all sizes, 100 detections of a
            class an image, LVIS's 300 of all; -1 for a class without objects; classes as in `classes`.
    """

    figures: dict[str, float]
    classes: dict[int, dict[str, float]]
    precision: np.ndarray


def coco_scores(
    truth: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_type: IoUType,
    *,
    image_ids: Sequence[int] | None = None,
    category_ids: Sequence[int] | None = None,
    class_agnostic: bool = False,
    tool: Tool = "faster_coco_eval",
) -> CocoScores:
    """The figures of results on images with a known truth.

    Args:
        truth: as COCO's instances json has it. Annotations without "iscrowd" are no crowds, those without "area" have
            their box's; their ids may be missing, repeated or 0.
        results: as COCO's results json has it: dict(image_id, category_id, score) and bbox=[left, top, width, height],
            or for "segm" segmentation=RLE and no bbox, which would count as the area.
        iou_type: overlap of boxes or of masks.
        image_ids: images that count; all of the truth if None.
        category_ids: classes that count; all of the truth if None.
        class_agnostic: an object counts as found whatever its class is said to be; `classes` is then empty.
        tool: the library that computes.
    Raises:
        ValueError: results of an image that the truth does not have.
    """
    truth = completed(truth)
    image_ids = sorted(image["id"] for image in truth["images"]) if image_ids is None else sorted(set(image_ids))
    category_ids = [kind["id"] for kind in truth["categories"]] if category_ids is None else list(category_ids)
    category_ids = sorted(set(category_ids))  # as both tools order them
    unknown = {result["image_id"] for result in results} - {image["id"] for image in truth["images"]}
    if unknown:
        raise ValueError(f"results of image {min(unknown)}, which the truth does not have")
    objects = number_of_objects(truth, image_ids)
    if not results:  # which pycocotools does not take
        classes = {
            kind: class_scores(np.zeros((10, 101)), np.zeros(10), objects.get(kind, 0), "AR100")
            for kind in category_ids
        }
        empty = np.zeros((10, 101, len(category_ids)))
        return CocoScores(dict.fromkeys(FIGURES, 0.0), {} if class_agnostic else classes, empty)
    evaluation = _evaluated(truth, results, iou_type, tool, image_ids, category_ids, class_agnostic)
    precision, recall = (
        np.asarray(evaluation[name]) for name in ("precision", "recall")
    )  # [T, R, K, A, M], [T, K, A, M]
    classes = {}
    for index, kind in enumerate(() if class_agnostic else category_ids):
        of_class = precision[:, :, index, 0, -1], recall[:, index, 0, -1]
        classes[kind] = class_scores(*of_class, objects.get(kind, 0), "AR100")
    return CocoScores(_figures(precision, recall), classes, precision[:, :, :, 0, -1])


def _evaluated(
    truth: dict[str, Any],
    results: Sequence[Mapping[str, Any]],
    iou_type: str,
    tool: str,
    image_ids: list[int],
    category_ids: list[int],
    class_agnostic: bool,
) -> Mapping[str, Any]:
    """The tool's arrays of precision and recall."""
    made: Any
    pause: contextlib.AbstractContextManager[None]
    if tool == "faster_coco_eval":
        from faster_coco_eval import COCO, COCOeval_faster

        # Not by loadRes, which asks for the area and the box of every single mask.
        found = COCO({**truth, "annotations": _measured(results, iou_type)})
        made = COCOeval_faster(COCO(truth), found, iou_type, print_function=silent)
        pause = without_collection()
    elif tool == "pycocotools":
        from pycocotools.coco import COCO as ReferenceCOCO
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):
            reference = ReferenceCOCO()
            reference.dataset = truth
            reference.createIndex()
            made = COCOeval(reference, reference.loadRes(copied(results)), iou_type)
        pause = contextlib.nullcontext()
    else:
        raise ValueError(f"tool={tool!r} must be 'faster_coco_eval' or 'pycocotools'")
    made.params.imgIds, made.params.catIds = image_ids, category_ids
    made.params.useCats = int(not class_agnostic)
    with contextlib.redirect_stdout(io.StringIO()), pause:
        made.evaluate()
        made.accumulate()
    arrays: Mapping[str, Any] = made.eval
    return arrays


def _measured(results: Sequence[Mapping[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    """Copies of results as annotations, with the areas of their boxes, or of masks without one, as loadRes has it."""
    areas: Iterable[float]
    if iou_type == "bbox" or results[0].get("bbox"):
        areas = (width * height for *_, width, height in (result["bbox"] for result in results))
    else:
        from faster_coco_eval import mask as codec  # pycocotools' area fails on more than 255 at once

        areas = map(float, codec.area([result["segmentation"] for result in results]))
    numbered = enumerate(zip(results, areas, strict=True), 1)
    return [{**result, "id": number, "iscrowd": 0, "area": area} for number, (result, area) in numbered]


def completed(truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that both tools take and may write into; an annotation with the id 0 counts as not found in both."""
    annotations = []
    for number, annotation in enumerate(truth["annotations"], 1):
        given = {"iscrowd": 0, **annotation, "id": number}
        if "area" not in given:
            given["area"] = given["bbox"][2] * given["bbox"][3]
        annotations.append(given)
    return {"info": {}, **truth, "annotations": annotations}


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """The garbage collector rests: it would walk over a list for every image and class again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def copied(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The tools write into what they are given."""
    return [dict(result) for result in results]


def number_of_objects(truth: Mapping[str, Any], image_ids: Sequence[int]) -> dict[int, int]:
    """How many objects of each class count."""
    counted = set(image_ids)
    objects: dict[int, int] = {}
    for annotation in truth["annotations"]:
        if annotation["image_id"] in counted and not annotation["iscrowd"]:
            objects[annotation["category_id"]] = objects.get(annotation["category_id"], 0) + 1
    return objects


def _figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """The twelve, in COCO's order."""
    by_size = {f"AP{size}": mean_of_defined(precision[:, :, :, area, -1]) for size, area in AREAS.items()}
    recalls = {f"AR{number}": mean_of_defined(recall[:, :, 0, index]) for index, number in enumerate((1, 10, 100))}
    return {
        "AP": mean_of_defined(precision[:, :, :, 0, -1]),
        "AP50": mean_of_defined(precision[_HALF, :, :, 0, -1]),
        "AP75": mean_of_defined(precision[_THREE_QUARTERS, :, :, 0, -1]),
        **by_size,
        **recalls,
        **{f"AR{size}": mean_of_defined(recall[:, :, area, -1]) for size, area in AREAS.items()},
    }


def class_scores(precision: np.ndarray, recall: np.ndarray, objects: int, recall_name: str) -> dict[str, float]:
    """Of one class, from its precision [10, 101] and recall [10]."""
    values = {
        "AP": mean_of_defined(precision),
        "AP50": mean_of_defined(precision[_HALF]),
        recall_name: mean_of_defined(recall),
    }
    return {name: value if objects else float("nan") for name, value in values.items()} | {"objects": objects}


def mean_of_defined(values: np.ndarray) -> float:
    """Over what is defined; -1, COCO's mark, where nothing is."""
    defined = values[values > -1]
    return float(np.mean(defined)) if defined.size else -1.0


def silent(*lines: object) -> None:
    """Where faster-coco-eval's progress goes."""

"""Boundary F: how well outlines agree, which IoU hardly sees.

Source: Csurka, Larlus, Perronnin: What is a good evaluation measure for semantic segmentation? BMVC 2013: precision and
recall of each class's outline within 0.75 % of the image's diagonal. The paper leaves open what follows; here:

- an outline of a class is its pixels that have one of another class above, below, left or right; the image's border and
  ignored pixels make no outline, and what is predicted where the truth is ignored does not count;
- a class counts in an image if the truth or the prediction has an outline of it, with 0 if only one has;
- an image's score is the mean over its classes, the dataset's score the mean over its images.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from visionattn.registry import METRICS
from visionattn.segmentation.confusion import check_pair, class_table
from visionattn.segmentation.labels import IGNORE
from visionattn.segmentation.streaming import StreamingMetric

_ONE = 1 << 40
"""A score of 1, as the metric adds it up: sums of integers are the same in any order."""


@METRICS.register_module()
class BoundaryFMetric(StreamingMetric):
    """mBF in percent, the mean boundary F1 score, with a table of the classes; see the module for the definition.

    Beside the IoU: `val_evaluator = [dict(type="visionattn.IoUMetric"), dict(type="visionattn.BoundaryFMetric")]`.

    Args:
        tolerance: how far two outlines may lie apart, as a share of the image's diagonal.
        ignore_index: the label of pixels that are not evaluated.
        prefix: goes before the names, as "prefix/mBF".
    Attributes:
        images: [{"image": file or null, "BF": percent or null}, ...] of the last evaluation.
    """

    def __init__(self, tolerance: float = 0.0075, ignore_index: int = IGNORE, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        if not tolerance > 0:
            raise ValueError(f"tolerance={tolerance} must be above 0; the paper's is 0.0075 of the image's diagonal")
        self.tolerance = tolerance
        self.ignore_index = ignore_index
        self.images: list[dict[str, Any]] = []

    def zero(self) -> Tensor:
        """[K + 1, 2]: sum of scores and number of images, of each class and, last, of the images' own scores."""
        return torch.zeros(len(self.dataset_meta["classes"]) + 1, 2, dtype=torch.long)

    def count(self, sample: dict[str, Any]) -> Tensor:
        truth, prediction = (sample[key]["data"].squeeze(0).cpu() for key in ("gt_sem_seg", "pred_sem_seg"))
        where = sample.get("seg_map_path") or sample.get("img_path") or "a sample"
        check_pair(prediction, truth, len(self.dataset_meta["classes"]), self.ignore_index, where)
        scores = boundary_f(
            prediction.numpy(), truth.numpy(), self.tolerance * float(np.hypot(*truth.shape)), self.ignore_index
        )
        counted = self.zero()
        for label, score in scores.items():
            counted[label] = torch.tensor([round(score * _ONE), 1])
        if scores:
            counted[-1] = torch.tensor([round(sum(scores.values()) / len(scores) * _ONE), 1])
        return counted

    def scores(self, sample: dict[str, Any], counted: Tensor) -> dict[str, Any]:
        score, number = counted[-1].tolist()
        return {"image": sample.get("img_path"), "BF": 100 * score / _ONE if number else None}

    def means(self, total: Tensor, images: list[dict[str, Any]]) -> dict[str, float]:
        self.images = images
        with np.errstate(invalid="ignore"):
            scores = total[:, 0].numpy() / total[:, 1].numpy() / _ONE
        if is_main_process():
            table = class_table(self.dataset_meta["classes"], {"boundary F": scores[:-1]})
            print_log(f"boundary F by class\n{table}\nmBF {scores[-1]:.4f}", logger="current")
        return {"mBF": 100 * float(scores[-1])}


def boundary_f(prediction: np.ndarray, truth: np.ndarray, tolerance: float, ignore_index: int) -> dict[int, float]:
    """The F1 score, 0 to 1, of each class that has an outline in the truth or the prediction.

    Args:
        prediction, truth: [H, W] integers; ignore_index in the truth is counted nowhere.
        tolerance: pixels; outlines match at this distance or less.
    """
    kept = truth != ignore_index
    outlines = outline(prediction, kept), outline(truth, kept)
    classes = np.unique(
        np.concatenate([labels[line] for labels, line in zip((prediction, truth), outlines, strict=True)])
    )
    scores = {}
    for label in classes.tolist():
        predicted, true = outlines[0] & (prediction == label), outlines[1] & (truth == label)
        if not (predicted.any() and true.any()):
            scores[int(label)] = 0.0
            continue
        precision = (_distance(true)[predicted] <= tolerance).mean()
        recall = (_distance(predicted)[true] <= tolerance).mean()
        scores[int(label)] = float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0
    return scores


def outline(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels that have one of another label above, below, left or right, among those that are kept."""
    on = np.zeros(labels.shape, bool)
    for first, second in (((slice(1, None), ...), (slice(-1), ...)), ((..., slice(1, None)), (..., slice(-1)))):
        change = (labels[first] != labels[second]) & kept[first] & kept[second]
        on[first] |= change
        on[second] |= change
    return on


def _distance(line: np.ndarray) -> np.ndarray:
    """[H, W]: pixels from each place to the nearest of the line, exact."""
    return cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)

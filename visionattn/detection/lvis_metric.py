"""LVIS's figures of a detector, over all processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from visionattn.detection.coco_scores import CocoScores, IoUType
from visionattn.detection.lvis_scores import LVIS_FIGURES, lvis_scores
from visionattn.detection.metric import CocoMetric
from visionattn.registry import METRICS


@METRICS.register_module()
class LvisMetric(CocoMetric):
    """LVIS's AP and AR of boxes and masks, 0 to 1, under its federated rule; -1 where the truth has no such object.

    "lvis/bbox_AP", "lvis/bbox_APr", ..., "lvis/segm_ARl": the thirteen of `LVIS_FIGURES` for each kind; see
    `lvis_scores`. Files are those of `CocoMetric` with "AR300" for the classes, and without the confusions: where the
    annotations speak of a few classes, what is taken for what is not known.

    Args:
        ann_file: LVIS's json with the truth; None takes the data set's metainfo.
        iou_types, out, prefix: as of `CocoMetric`.
    Raises:
        ValueError: as `CocoMetric`; a data set whose json does not say of which classes its images speak.
    """

    figure_names = LVIS_FIGURES

    def __init__(
        self,
        ann_file: str | Path | None = None,
        *,
        iou_types: Sequence[IoUType] = ("bbox",),
        out: str | Path | None = None,
        prefix: str = "lvis",
    ) -> None:
        super().__init__(ann_file, iou_types=iou_types, out=out, prefix=prefix)

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """The data set's metainfo; a run sets it before its first step."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, Any]) -> None:
        if self.ann_file is None and not meta.get("federated", True):
            truth = meta.get("ann_file", "what the data set reads")
            raise ValueError(
                f"LvisMetric: {truth} is not LVIS's (neg_category_ids and not_exhaustive_category_ids of every image, "
                "a frequency of every category); evaluate with visionattn.CocoMetric"
            )
        self._dataset_meta = meta

    def _scored(
        self,
        truth: Mapping[str, Any],
        rows: list[dict[str, Any]],
        kind: IoUType,
        image_ids: list[int],
        categories: list[int],
    ) -> CocoScores:
        return lvis_scores(truth, rows, kind, image_ids=image_ids, category_ids=categories)

    def _confusions(
        self, truth: Mapping[str, Any], results: list[dict[str, Any]], categories: list[int]
    ) -> np.ndarray | None:
        return None

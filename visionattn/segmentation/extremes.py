"""The images that a model segments best and worst, by their own mIoU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from visionattn.data.images import read_image
from visionattn.segmentation.confusion import ClassScores, confusion_matrix
from visionattn.segmentation.labels import IGNORE
from visionattn.visualization.extremes import Extremes, Tiles


class SegmentationExtremes:
    """The `number` best and the `number` worst images of an evaluation.

    Args:
        number: of the best, and of the worst.
        metainfo: of the data set: classes, palette.
        ignore_index: the label that is not evaluated.
    """

    def __init__(self, number: int, metainfo: Mapping[str, Any], ignore_index: int = IGNORE) -> None:
        self.metainfo = metainfo
        self.ignore_index = ignore_index
        self._extremes = Extremes(number, "mIoU")

    def look(self, sample: Any) -> None:
        """Keeps an evaluated sample of mmseg's if it is among the best or the worst so far."""
        truth, prediction = sample.gt_sem_seg.data[0], sample.pred_sem_seg.data[0]
        number = len(self.metainfo["classes"])
        confusion = confusion_matrix(prediction, truth, number, self.ignore_index, sample.img_path)
        score = float(ClassScores.of(confusion.numpy()).means()["mIoU"])
        if not self._extremes.wants(score):
            return
        true_labels, labels = (part.to("cpu", torch.uint8).numpy().copy() for part in (truth, prediction))
        path = sample.img_path

        def tiles() -> Tiles:
            from visionattn.visualization.panels import segmentation_tiles

            classes, palette = self.metainfo["classes"], self.metainfo.get("palette")
            return segmentation_tiles(read_image(path), true_labels, labels, classes, palette, self.ignore_index)[0]

        self._extremes.keep(score, path, tiles)

    def write(self, out: Path, rank: int = 0, processes: int = 1) -> None:
        """As `visualization.extremes.Extremes.write`: input, truth, prediction and error of each."""
        self._extremes.write(out, rank, processes)

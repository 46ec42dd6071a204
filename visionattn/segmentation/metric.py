"""Intersection over union, counted in integers."""

from __future__ import annotations

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from torch import Tensor

from visionattn.registry import METRICS
from visionattn.segmentation.confusion import ClassScores, class_table, confusion_matrix
from visionattn.segmentation.labels import IGNORE
from visionattn.segmentation.streaming import StreamingMetric


@METRICS.register_module()
class IoUMetric(StreamingMetric):
    """mIoU, mAcc, aAcc and mDice in percent, with a table of the classes and a line `mIoU 0.1234`.

    From one K x K confusion matrix over the whole dataset. Names and means are mmseg's: a class that is neither in the
    truth nor predicted counts in no mean. mDice is also the mean F1 score. Not as in mmseg: a label outside the classes
    is refused (mmseg drops it), areas are integers (its float32 sums lose pixels above 16.7 million), the numbers are
    not rounded, and there is one matrix and no list of them.

    Files in `out`, written anew by each evaluation:

        confusion_matrix.npy   [K, K] int64, pixels; rows the truth, columns the prediction, ignored pixels left out
        classes.json           {"mIoU", "mAcc", "aAcc", "mDice": percent, "images": number,
                                "classes": [{"name", "color": [r, g, b] or null, "IoU", "accuracy", "precision", "Dice":
                                percent or null, "pixels": of the truth, "predicted": pixels}, ...]}
        images.json            [{"image": file or null, "mask": file or null, "mIoU": percent over the classes in it or
                                null, "aAcc": percent or null, "pixels": counted}, ...], in the order of the dataset

    Args:
        ignore_index: the label of pixels that are not evaluated.
        out: folder for the files; None writes none, except in a run of visionattn's Runner: work_dir/evaluation.
        prefix: goes before the names, as "prefix/mIoU".
    Attributes:
        confusion: the last evaluation's matrix, as in the file; None before.
        images: the last evaluation's images, as in the file.
    """

    printed = ("mIoU",)  # by itself: the evaluation's line leaves it out

    def __init__(self, ignore_index: int = IGNORE, out: str | Path | None = None, prefix: str | None = None) -> None:
        super().__init__(prefix=prefix)
        self.ignore_index = ignore_index
        self.out = out  # a Runner puts its own folder where there is None
        self.confusion: np.ndarray | None = None
        self.images: list[dict[str, Any]] = []

    def zero(self) -> Tensor:
        num_classes = len(self.dataset_meta["classes"])
        return torch.zeros(num_classes, num_classes, dtype=torch.long)

    def count(self, sample: dict[str, Any]) -> Tensor:
        truth, prediction = (sample[key]["data"].squeeze(0) for key in ("gt_sem_seg", "pred_sem_seg"))
        where = sample.get("seg_map_path") or sample.get("img_path") or "a sample"
        return confusion_matrix(prediction, truth, len(self.dataset_meta["classes"]), self.ignore_index, where)

    def scores(self, sample: dict[str, Any], counted: Tensor) -> dict[str, Any]:
        scores = ClassScores.of(counted.numpy())
        means = scores.means()
        return {
            "image": sample.get("img_path"),
            "mask": sample.get("seg_map_path"),
            "mIoU": _or_none(means["mIoU"]),
            "aAcc": _or_none(means["aAcc"]),
            "pixels": int(scores.pixels.sum()),
        }

    def means(self, total: Tensor, images: list[dict[str, Any]]) -> dict[str, float]:
        self.confusion, self.images = total.numpy(), images
        scores = ClassScores.of(self.confusion)
        means = scores.means()
        if is_main_process():
            shares = scores.pixels / max(scores.pixels.sum(), 1)
            columns = {"IoU": scores.iou, "accuracy": scores.accuracy, "Dice": scores.dice, "% of pixels": shares}
            table = class_table(self.dataset_meta["classes"], columns)
            print_log(f"IoU, accuracy and Dice by class\n{table}\nmIoU {means['mIoU'] / 100:.4f}", logger="current")
            if self.out is not None:
                self._write(Path(self.out), scores, means)
        return means

    def _write(self, out: Path, scores: ClassScores, means: dict[str, float]) -> None:
        assert self.confusion is not None
        names, palette = self.dataset_meta["classes"], self.dataset_meta.get("palette")
        classes = [
            {
                "name": name,
                "color": [int(value) for value in palette[index]] if palette is not None else None,
                "IoU": _or_none(100 * scores.iou[index]),
                "accuracy": _or_none(100 * scores.accuracy[index]),
                "precision": _or_none(100 * scores.precision[index]),
                "Dice": _or_none(100 * scores.dice[index]),
                "pixels": int(scores.pixels[index]),
                "predicted": int(self.confusion[:, index].sum()),
            }
            for index, name in enumerate(names)
        ]
        report: dict[str, Any] = {name: _or_none(value) for name, value in means.items()}
        report |= {"images": len(self.images), "classes": classes}
        out.mkdir(parents=True, exist_ok=True)
        matrix = BytesIO()
        np.save(matrix, self.confusion)
        _replace(out / "confusion_matrix.npy", matrix.getvalue())
        for name, content in (("classes.json", report), ("images.json", self.images)):
            _replace(out / name, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _replace(path: Path, content: bytes) -> None:
    """Writes a file beside `path` and puts it in its place: who reads meanwhile sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def _or_none(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else float(value)

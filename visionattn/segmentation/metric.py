"""Intersection over union, counted in integers."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from visionattn.registry import METRICS
from visionattn.segmentation.labels import IGNORE


@METRICS.register_module()
class IoUMetric(BaseMetric):
    """mIoU, mAcc and aAcc in percent, as mmseg names them, with a table of the classes and a line `mIoU 0.1234`.

    As in mmseg, a class that is neither in the truth nor predicted counts in no mean. Not as in mmseg: a label outside
    the classes is refused (mmseg drops it), areas are integers (its float32 sums lose pixels above 16.7 million), and
    the numbers are not rounded.

    Args:
        ignore_index: the label of pixels that are not evaluated.
        collect_device: "cpu" or "gpu": how the processes exchange their counts.
        prefix: goes before the names, as "prefix/mIoU".
    """

    def __init__(self, ignore_index: int = IGNORE, collect_device: str = "cpu", prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Counts each sample's areas, so that samples which padding a distributed run repeats can be dropped."""
        num_classes = len(self.dataset_meta["classes"])
        for sample in data_samples:
            truth, prediction = (sample[key]["data"].squeeze(0) for key in ("gt_sem_seg", "pred_sem_seg"))
            where = sample.get("seg_map_path") or sample.get("img_path") or "a sample"
            self.results.append(areas(prediction, truth, num_classes, self.ignore_index, where))

    def compute_metrics(self, results: list[Tensor]) -> dict[str, float]:
        """The means in percent; prints the table."""
        intersection, predicted, true = torch.stack(results).sum(0).double().numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            iou = intersection / (predicted + true - intersection)
            accuracy = intersection / true
            means = {
                "mIoU": _mean(iou) * 100,
                "mAcc": _mean(accuracy) * 100,
                "aAcc": float(intersection.sum() / true.sum()) * 100,
            }
        table = class_table(self.dataset_meta["classes"], iou, accuracy, true)
        print_log(f"IoU and accuracy by class\n{table}\nmIoU {means['mIoU'] / 100:.4f}", logger="current")
        return means


def areas(prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int, where: str = "a sample") -> Tensor:
    """[3, K] int64: pixels of each class that are right, predicted, and true, among those that are not ignored.

    Args:
        prediction, truth: [H, W] integers, 0..K-1, or ignore_index in the truth.
        where: the sample's file, for the message.
    Raises:
        ValueError: shapes differ, or a label is outside the classes; names the file, the first pixel and its value.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f"{where}: the prediction is {list(prediction.shape)} but the truth {list(truth.shape)}; load the labels "
            "after resizing in the pipeline for evaluation"
        )
    kept = truth != ignore_index
    for name, labels, looked_at in (
        ("truth", truth, kept),
        ("prediction", prediction, torch.ones_like(kept)),
    ):
        outside = ((labels < 0) | (labels >= num_classes)) & looked_at
        if outside.any():
            row, column = (int(i) for i in outside.nonzero()[0])
            ignored = f" or ignored {ignore_index}" if name == "truth" else ""
            raise ValueError(
                f"{where}: the {name} holds {labels[row, column].item():g} at row {row}, column {column}; allowed are "
                f"0..{num_classes - 1}{ignored}: the model and the dataset must agree on {num_classes} classes"
            )
    truth, prediction = truth[kept].long().cpu(), prediction[kept].long().cpu()
    return torch.stack(
        [torch.bincount(labels, minlength=num_classes) for labels in (truth[prediction == truth], prediction, truth)]
    )


def class_table(classes: Sequence[str], iou: np.ndarray, accuracy: np.ndarray, true: np.ndarray) -> str:
    """The classes' IoU, accuracy and share of the true pixels as a table in plain characters.

    Args:
        iou, accuracy: [K], 0 to 1, nan where not defined.
        true: [K], pixels.
    """
    table = Table(box=box.ASCII)
    table.add_column("class")
    for heading in ("IoU", "accuracy", "% of pixels"):
        table.add_column(heading, justify="right")
    shares = true / max(true.sum(), 1)
    for name, *numbers in zip(classes, iou, accuracy, shares, strict=True):
        table.add_row(name, *("-" if np.isnan(n) else f"{100 * n:.2f}" for n in numbers))
    width = 60 + max(len(name) for name in classes)
    console = Console(file=StringIO(), width=width, color_system=None, markup=False)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _mean(values: np.ndarray) -> float:
    """The mean of those that are defined; nan if none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")

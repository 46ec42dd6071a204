"""The confusion matrix, and every score that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor


def confusion_matrix(
    prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int, where: str = "a sample"
) -> Tensor:
    """[K, K] int64: pixels of true class (row) that were predicted as class (column), ignored ones left out.

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
    truth = truth.to(prediction.device)
    kept = truth != ignore_index
    for name, labels, looked_at in (("truth", truth, kept), ("prediction", prediction, torch.ones_like(kept))):
        outside = ((labels < 0) | (labels >= num_classes)) & looked_at
        if outside.any():
            row, column = (int(i) for i in outside.nonzero()[0])
            ignored = f" or ignored {ignore_index}" if name == "truth" else ""
            raise ValueError(
                f"{where}: the {name} holds {labels[row, column].item():g} at row {row}, column {column}; allowed are "
                f"0..{num_classes - 1}{ignored}: the model and the dataset must agree on {num_classes} classes"
            )
    pairs = truth[kept].long() * num_classes + prediction[kept].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).cpu()


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, [K], 0 to 1, nan where a class is neither in the truth nor predicted."""

    iou: np.ndarray
    accuracy: np.ndarray
    dice: np.ndarray
    precision: np.ndarray
    pixels: np.ndarray
    """[K] int64, of the truth."""
    right: int
    """Pixels that were predicted as what they are."""

    @classmethod
    def of(cls, confusion: np.ndarray) -> ClassScores:
        """Those of a confusion matrix [K, K], rows the truth."""
        right, true, predicted = np.diag(confusion), confusion.sum(1), confusion.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return cls(
                iou=right / (true + predicted - right),
                accuracy=right / true,
                dice=2 * right / (true + predicted),
                precision=right / predicted,
                pixels=true,
                right=int(right.sum()),
            )

    def means(self) -> dict[str, float]:
        """In percent, over the classes that have the score; nan where none has."""
        total = int(self.pixels.sum())
        return {
            "mIoU": 100 * _mean(self.iou),
            "mAcc": 100 * _mean(self.accuracy),
            "aAcc": 100 * self.right / total if total else float("nan"),
            "mDice": 100 * _mean(self.dice),
        }


def class_table(classes: Sequence[str], shares: np.ndarray, **scores: np.ndarray) -> str:
    """The classes' scores and shares of the true pixels as a table in plain characters.

    Args:
        shares: [K], 0 to 1.
        scores: [K] under the column's name, 0 to 1, nan where not defined.
    """
    table = Table(box=box.ASCII)
    table.add_column("class")
    columns = {**scores, "% of pixels": shares}
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, *numbers in zip(classes, *columns.values(), strict=True):
        table.add_row(name, *("-" if np.isnan(n) else f"{100 * n:.2f}" for n in numbers))
    width = 20 * (1 + len(columns)) + max(len(name) for name in classes)
    console = Console(file=StringIO(), width=width, color_system=None, markup=False)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _mean(values: np.ndarray) -> float:
    """The mean of those that are defined; nan if none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")

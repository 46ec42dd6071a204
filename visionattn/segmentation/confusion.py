"""The confusion matrix, and every score that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        ValueError: as `check_pair`.
    """
    truth = truth.to(prediction.device)
    check_pair(prediction, truth, num_classes, ignore_index, where)
    kept = truth != ignore_index
    pairs = truth[kept].long() * num_classes + prediction[kept].long()
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes).cpu()


def check_pair(prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int, where: str) -> None:
    """Raises ValueError if the shapes differ or a label is outside the classes: file, first pixel and its value."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"{where}: the prediction is {list(prediction.shape)} but the truth {list(truth.shape)}; load the labels "
            "after resizing in the pipeline for evaluation"
        )
    for name, labels, ignored in (("truth", truth, truth == ignore_index), ("prediction", prediction, None)):
        outside = (labels < 0) | (labels >= num_classes)
        if ignored is not None:
            outside &= ~ignored
        if outside.any():
            row, column = (int(i) for i in outside.nonzero()[0])
            also = "" if ignored is None else f" or ignored {ignore_index}"
            raise ValueError(
                f"{where}: the {name} holds {labels[row, column].item():g} at row {row}, column {column}; allowed are "
                f"0..{num_classes - 1}{also}: the model and the dataset must agree on {num_classes} classes"
            )


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


def class_table(classes: Sequence[str], columns: Mapping[str, np.ndarray]) -> str:
    """The classes' numbers in percent, as a table in plain characters.

    Args:
        columns: [K] under each heading, 0 to 1, nan where not defined.
    """
    table = Table(box=box.ASCII)
    table.add_column("class")
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

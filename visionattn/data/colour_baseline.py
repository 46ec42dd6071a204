"""What colour alone can do: the classifier that a segmentation network has to beat."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Pair = tuple[NDArray[np.uint8], NDArray[np.integer]]
"""An image [H, W, 3], 8 bit, and its labels [H, W]."""


def colour_classifier_miou(
    train_pairs: Iterable[Pair], val_pairs: Iterable[Pair], num_classes: int, ignore_index: int = 255, bins: int = 16
) -> tuple[float, NDArray[np.float64]]:
    """Mean IoU (0 to 1), and each class's, of the best rule that sees one pixel's colour and nothing else.

    The rule answers with the class that was most frequent in the training pixels of the same colour, and with the most
    frequent of all for a colour that never occurred. Per-class IoU is nan where a class is neither there nor predicted;
    such classes do not count in the mean.

    Args:
        train_pairs, val_pairs: images and labels 0 .. num_classes - 1; read once each.
        ignore_index: label of pixels that are neither learned from nor evaluated.
        bins: steps into which each channel's 256 values are joined.
    Raises:
        ValueError: a label outside the classes, an image that does not fit its labels, or no labelled pixel.
    """
    if not 1 <= bins <= 256:
        raise ValueError(f"bins={bins} must be from 1 to 256; 16 is usual")
    counts = np.zeros((bins**3, num_classes), np.int64)
    for image, labels in train_pairs:
        np.add.at(counts, _colours_and_classes(image, labels, num_classes, ignore_index, bins), 1)
    if not counts.any():
        raise ValueError("the training pairs have no labelled pixel; check the labels and ignore_index")
    rule = np.where(counts.any(axis=1), counts.argmax(axis=1), counts.sum(axis=0).argmax())

    confusion = np.zeros((num_classes, num_classes), np.int64)  # [truth, prediction]
    for image, labels in val_pairs:
        colours, classes = _colours_and_classes(image, labels, num_classes, ignore_index, bins)
        np.add.at(confusion, (classes, rule[colours]), 1)
    if not confusion.any():
        raise ValueError("the validation pairs have no labelled pixel; check the labels and ignore_index")
    right = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    iou = np.divide(right, union, out=np.full(num_classes, np.nan), where=union > 0)
    return float(np.nanmean(iou)), iou


def _colours_and_classes(
    image: NDArray[np.uint8], labels: NDArray[np.integer], num_classes: int, ignore_index: int, bins: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The colour bin and the class of every labelled pixel, [P] each."""
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3):
        raise ValueError(
            f"expected an 8-bit image of shape {[*labels.shape, 3]} for labels of shape {list(labels.shape)}, "
            f"got {image.dtype} {list(image.shape)}"
        )
    labelled = labels != ignore_index
    classes = labels[labelled].astype(np.int64)
    if classes.size and not 0 <= classes.min() <= classes.max() < num_classes:
        raise ValueError(
            f"labels go from {classes.min()} to {classes.max()}, but there are {num_classes} classes "
            f"(0 to {num_classes - 1}) and {ignore_index} to ignore; is the zero label to be reduced?"
        )
    r, g, b = ((image[labelled].astype(np.int64) * bins) >> 8).T
    return (r * bins + g) * bins + b, classes

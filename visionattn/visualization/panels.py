"""A prediction beside the picture, the truth and its mistakes, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.palette import complete_palette
from visionattn.visualization.tiles import Pixels, displayed_size, hatch, nearest, page_of_tiles, resized, swatch

WRONG = (214, 20, 40)
"""The colour of wrong pixels in the error panel."""

_WRONG_NAME, _UNSEEN_NAME = "wrong", "not evaluated"


def segmentation_panel(
    image: Pixels,
    truth: NDArray[np.integer] | None,
    prediction: NDArray[np.integer],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
    alpha: float = 0.6,
) -> Pixels:
    """An RGB picture: input, truth, prediction and error side by side, above a legend of the classes that occur.

    Labels are laid over the grey picture, so that every hue is a class's. Without truth: input and prediction.

    Args:
        image: [H, W, 3], RGB, 8 bit.
        truth: [H, W], 0 .. number of classes - 1 or ignore_index; None if unknown.
        prediction: [H, W], 0 .. number of classes - 1.
        classes: names.
        palette: R, G, B of each class; classes without one get a colour of `class_palette`.
        ignore_index: label of pixels that are not evaluated; hatched in truth and error.
        alpha: 0 shows the grey picture, 1 the classes alone.
    Raises:
        ValueError: maps of different sizes, or a label outside the classes.
    """
    return page_of_tiles(*segmentation_tiles(image, truth, prediction, classes, palette, ignore_index, alpha))


def segmentation_tiles(
    image: Pixels,
    truth: NDArray[np.integer] | None,
    prediction: NDArray[np.integer],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
    alpha: float = 0.6,
) -> tuple[list[tuple[str, Pixels]], list[tuple[str, Pixels]]]:
    """The tiles of `segmentation_panel` under their titles, and its legend: a swatch for each name."""
    _check(image, truth, prediction, len(classes), ignore_index, alpha)
    if truth is not None:
        truth = np.where(truth == ignore_index, -1, truth.astype(np.int64))
    colours = complete_palette(palette, len(classes))
    size = displayed_size(prediction.shape[0], prediction.shape[1])
    photo = resized(image, size)
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)

    tiles = [("input", photo)]
    if truth is not None:
        tiles.append(("truth", _overlay(grey, nearest(truth, size), colours, alpha)))
    tiles.append(("prediction", _overlay(grey, nearest(prediction, size), colours, alpha)))
    present = np.unique(prediction) if truth is None else np.union1d(prediction, truth[truth >= 0])
    legend = [(classes[label], swatch(colours[label])) for label in present]
    if truth is not None:
        wrong = (truth != prediction) & (truth >= 0)
        share = wrong.sum() / max(1, int((truth >= 0).sum()))
        tiles.append((f"error ({share:.1%})", _error(grey, nearest(wrong, size), nearest(truth < 0, size))))
        if wrong.any():
            legend.append((_WRONG_NAME, swatch(WRONG)))
        if (truth < 0).any():
            legend.append((_UNSEEN_NAME, hatch((64, 64))))
    return tiles, legend


def label_tile(
    image: Pixels,
    labels: NDArray[np.integer],
    num_classes: int,
    palette: Sequence[Sequence[int]] | None = None,
    ignore_index: int = 255,
    alpha: float = 0.6,
) -> Pixels:
    """The labels [H, W] over the grey picture [H, W, 3], RGB and of its size; what is ignored is hatched.

    Raises:
        ValueError: different sizes, or a label outside the classes.
    """
    _check(image, labels, None, num_classes, ignore_index, alpha)
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    shown = np.where(labels == ignore_index, -1, labels.astype(np.int64))
    return _overlay(grey, shown, complete_palette(palette, num_classes), alpha)


def _check(
    image: Pixels,
    truth: NDArray[np.integer] | None,
    prediction: NDArray[np.integer] | None,
    num_classes: int,
    ignore_index: int,
    alpha: float,
) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(f"expected an 8-bit RGB image of shape [H, W, 3], got {image.dtype} {list(image.shape)}")
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha={alpha} must be from 0 to 1")
    for name, labels in (("truth", truth), ("prediction", prediction)):
        if labels is None:
            continue
        if labels.shape != image.shape[:2]:
            raise ValueError(f"the {name} has shape {list(labels.shape)}, the image {list(image.shape[:2])}")
        known = labels[labels != ignore_index] if name == "truth" else labels
        if known.size and not 0 <= known.min() <= known.max() < num_classes:
            raise ValueError(
                f"the {name} has labels {known.min()} to {known.max()}, but there are {num_classes} classes"
            )


def _overlay(grey: Pixels, labels: NDArray[np.integer], colours: Pixels, alpha: float) -> Pixels:
    hatched = labels < 0
    mixed = alpha * colours[np.where(hatched, 0, labels)] + (1 - alpha) * grey
    return np.where(hatched[..., None], hatch(grey.shape[:2]), np.round(mixed)).astype(np.uint8)


def _error(grey: Pixels, wrong: NDArray[np.bool_], unseen: NDArray[np.bool_]) -> Pixels:
    pale = grey // 3 + 150
    pale[wrong] = WRONG
    return np.where(unseen[..., None], hatch(grey.shape[:2]), pale)

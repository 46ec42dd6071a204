"""A prediction beside the picture, the truth and its mistakes, with a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from visionattn.visualization.palette import complete_palette

WRONG = (214, 20, 40)
"""The colour of wrong pixels in the error panel."""

_PAPER, _INK, _RULE = (255, 255, 255), (30, 30, 30), (150, 150, 150)
_HATCH = (176, 226)  # greys of what is not evaluated
_LEAST_HEIGHT, _MOST = 256, 800  # of a displayed picture: smaller ones are enlarged, larger ones reduced
_SWATCH_GAP = 6
_WRONG_NAME, _UNSEEN_NAME = "wrong", "not evaluated"

Pixels = NDArray[np.uint8]


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
    return _page(*segmentation_tiles(image, truth, prediction, classes, palette, ignore_index, alpha))


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
    size = _displayed_size(prediction.shape[0], prediction.shape[1])
    photo = _resized(image, size)
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)

    tiles = [("input", photo)]
    if truth is not None:
        tiles.append(("truth", _overlay(grey, _nearest(truth, size), colours, alpha)))
    tiles.append(("prediction", _overlay(grey, _nearest(prediction, size), colours, alpha)))
    present = np.unique(prediction) if truth is None else np.union1d(prediction, truth[truth >= 0])
    legend = [(classes[label], _swatch(colours[label])) for label in present]
    if truth is not None:
        wrong = (truth != prediction) & (truth >= 0)
        share = wrong.sum() / max(1, int((truth >= 0).sum()))
        tiles.append((f"error ({share:.1%})", _error(grey, _nearest(wrong, size), _nearest(truth < 0, size))))
        if wrong.any():
            legend.append((_WRONG_NAME, _swatch(WRONG)))
        if (truth < 0).any():
            legend.append((_UNSEEN_NAME, _hatch((64, 64))))
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


def _displayed_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which a picture is shown: a whole multiple if it is small, reduced if it is large."""
    if max(height, width) > _MOST:
        return max(1, round(height * _MOST / max(height, width))), max(1, round(width * _MOST / max(height, width)))
    factor = max(1, min(-(-_LEAST_HEIGHT // height), _MOST // width))
    return height * factor, width * factor


def _resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    smooth = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size[::-1], interpolation=smooth), np.uint8)


def _nearest(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    rows = np.arange(size[0]) * labels.shape[0] // size[0]
    columns = np.arange(size[1]) * labels.shape[1] // size[1]
    return np.asarray(labels[rows[:, None], columns])


def _overlay(grey: Pixels, labels: NDArray[np.integer], colours: Pixels, alpha: float) -> Pixels:
    hatched = labels < 0
    mixed = alpha * colours[np.where(hatched, 0, labels)] + (1 - alpha) * grey
    return np.where(hatched[..., None], _hatch(grey.shape[:2]), np.round(mixed)).astype(np.uint8)


def _error(grey: Pixels, wrong: NDArray[np.bool_], unseen: NDArray[np.bool_]) -> Pixels:
    pale = grey // 3 + 150
    pale[wrong] = WRONG
    return np.where(unseen[..., None], _hatch(grey.shape[:2]), pale)


def _hatch(size: tuple[int, int]) -> Pixels:
    diagonal = np.arange(size[0])[:, None] + np.arange(size[1])
    return np.where(diagonal[..., None] % 8 < 3, *_HATCH).astype(np.uint8).repeat(3, axis=-1)


def _swatch(colour: Sequence[int] | Pixels) -> Pixels:
    return np.full((64, 64, 3), colour, np.uint8)


def _page(tiles: list[tuple[str, Pixels]], legend: list[tuple[str, Pixels]]) -> Pixels:
    """Tiles in a row under their titles; the legend under them, in as many lines as it needs."""
    height = tiles[0][1].shape[0]
    text = int(np.clip(height / 20, 14, 28))
    title_font, font = ImageFont.load_default(text + 2), ImageFont.load_default(text)
    gap = text // 2 + 2
    column = max(tiles[0][1].shape[1], *(round(title_font.getlength(title)) + 1 for title, _ in tiles))
    lengths = [font.getlength(name) for name, _ in legend]
    width = max(gap + len(tiles) * (column + gap), text + _SWATCH_GAP + round(max(lengths)) + 2 * gap)
    top = gap + text + 2 + gap  # of the tiles
    lines = _wrapped(lengths, text, gap, width)
    line_height = round(1.6 * text)
    page = Image.new("RGB", (width, top + height + gap + (1 + max(y for _, y in lines)) * line_height + gap), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, tile) in enumerate(tiles):
        left = gap + number * (column + gap)
        draw.text((left, top - gap), title, fill=_INK, font=title_font, anchor="ls")
        page.paste(Image.fromarray(tile), (left, top))
    for (name, swatch), (x, line) in zip(legend, lines, strict=True):
        middle = top + height + gap + line * line_height + line_height // 2
        box = (x, middle - text // 2, x + text, middle - text // 2 + text)
        page.paste(Image.fromarray(swatch[:text, :text]), box[:2])
        draw.rectangle(box, outline=_RULE)
        draw.text((x + text + _SWATCH_GAP, middle), name, fill=_INK, font=font, anchor="lm")
    return np.array(page)


def _wrapped(lengths: list[float], text: int, gap: int, width: int) -> list[tuple[int, int]]:
    """Left edge and line of each legend entry whose name is so many pixels long."""
    places, x, line = [], gap, 0
    for length in lengths:
        needed = text + _SWATCH_GAP + round(length)
        if x > gap and x + needed > width - gap:
            x, line = gap, line + 1
        places.append((x, line))
        x += needed + 2 * gap
    return places

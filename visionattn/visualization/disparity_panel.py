"""A disparity map beside the picture, the truth and its errors, each with the numbers of its colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.colour_bar import colour_bar, round_marks
from visionattn.visualization.disparity import (
    ERROR_BOUNDS,
    ERROR_COLOURS,
    UNKNOWN,
    Disparity,
    Mask,
    Pixels,
    disparity_colours,
    disparity_picture,
    error_picture,
    largest,
)
from visionattn.visualization.tiles import displayed_size, nearest, page_of_tiles, resized, swatch, text_height

_WIDEST_ROW = 1700  # pixels: four pictures of a wide scene stand two by two
_SPARSE = 0.5  # of the pixels known: a laser's points are drawn larger, as KITTI does


def disparity_panel(
    left: Pixels,
    disparity: Disparity,
    truth: Disparity | None = None,
    valid: Mask | None = None,
    nonoccluded: Mask | None = None,
    *,
    high: float | None = None,
) -> Pixels:
    """An RGB picture: left, truth, disparity and error, each above the scale of its colours.

    Without truth: left and disparity.

    Args:
        left: [H, W, 3], RGB, 8 bit.
        disparity: [H, W], pixels.
        truth: [H, W], pixels; None if unknown.
        valid: bool [H, W], where the truth is known; where it is finite, if None.
        nonoccluded: bool [H, W]; errors on what the right view does not see are half as bright.
        high: the colours' end in pixels, for pictures that are to be compared; the truth's largest if None.
    Raises:
        ValueError: maps of different sizes, or no 8-bit RGB image.
    """
    tiles = disparity_tiles(left, disparity, truth, valid, nonoccluded, high=high)
    unknown = truth is not None and not _known(truth, valid).all()
    legend = [("no truth", swatch(UNKNOWN))] if unknown else []
    return page_of_tiles(tiles, legend, 2 if len(tiles) * tiles[0][1].shape[1] > _WIDEST_ROW else None)


def disparity_tiles(
    left: Pixels,
    disparity: Disparity,
    truth: Disparity | None = None,
    valid: Mask | None = None,
    nonoccluded: Mask | None = None,
    *,
    high: float | None = None,
) -> list[tuple[str, Pixels]]:
    """The tiles of `disparity_panel` under their titles."""
    for name, values in (("left image", left), ("disparity map", disparity), ("truth", truth)):
        if values is not None and values.shape[:2] != left.shape[:2]:
            raise ValueError(f"the {name} has shape {list(values.shape)}, the left image {list(left.shape[:2])}")
    if left.dtype != np.uint8 or left.ndim != 3 or left.shape[2] != 3 or not left.size:
        raise ValueError(f"expected an 8-bit RGB image of shape [H, W, 3], got {left.dtype} {list(left.shape)}")
    size = displayed_size(*left.shape[:2])
    tiles = [("left", resized(left, size))]
    if truth is None:
        return [*tiles, ("disparity", disparity_tile(disparity, size=size, high=high))]
    known = _known(truth, valid)
    high = largest(truth if known.any() else disparity, known if known.any() else None) if high is None else high
    errors = _larger_points(error_picture(disparity, truth, known, nonoccluded), known)
    return [
        *tiles,
        ("truth", disparity_tile(truth, known, size=size, high=high)),
        ("disparity", disparity_tile(disparity, size=size, high=high)),
        (_error_title(disparity, truth, known), np.concatenate([nearest(errors, size), _error_bar(size)])),
    ]


def disparity_tile(
    disparity: Disparity,
    valid: Mask | None = None,
    *,
    size: tuple[int, int] | None = None,
    low: float = 0.0,
    high: float | None = None,
    unit: str = "px",
) -> Pixels:
    """The disparity's colours above their scale.

    Args:
        disparity: [H, W], pixels.
        valid: as of `disparity_picture`.
        size: height and width at which it is shown; its own if None.
        low, high: as of `disparity_picture`.
        unit: of the values.
    """
    known = _known(disparity, valid)
    high = largest(disparity, known) if high is None else high
    size = (disparity.shape[0], disparity.shape[1]) if size is None else size
    picture = _larger_points(disparity_picture(disparity, known, low=low, high=high), known)
    bar = colour_bar(disparity_colours(), round_marks(low, high), unit, size[1], text_height(size[0]))
    return np.concatenate([nearest(picture, size), bar])


def _error_bar(size: tuple[int, int]) -> Pixels:
    marks = [((index + 1) / len(ERROR_COLOURS), f"{bound:.2g}") for index, bound in enumerate(ERROR_BOUNDS)]
    return colour_bar(ERROR_COLOURS, marks, "px", size[1], text_height(size[0]))


def _error_title(disparity: Disparity, truth: Disparity, known: Mask) -> str:
    if not known.any():
        return "error (no truth)"
    wanted = truth[known].astype(np.float64)
    error = np.abs(disparity[known] - wanted)
    outliers = ~((error <= 3) | (error <= 0.05 * wanted))
    return f"error: EPE {error.mean():.2f} px, D1 {outliers.mean():.1%}"


def _larger_points(picture: Pixels, known: Mask) -> Pixels:
    """The picture; where few pixels are known each is drawn over its unknown neighbours."""
    if known.mean() >= _SPARSE:
        return picture
    larger, filled = picture.copy(), known.copy()
    for rows, columns in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        near = np.roll(known, (rows, columns), (0, 1)) & ~filled
        larger[near] = np.roll(picture, (rows, columns), (0, 1))[near]
        filled |= near
    return larger


def _known(values: Disparity, valid: Mask | None) -> NDArray[np.bool_]:
    return np.isfinite(values) if valid is None else np.isfinite(values) & valid

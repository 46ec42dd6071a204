"""Disparities and their errors as colours.

Disparities are viridis of matplotlib (perceptually uniform, readable to colour-blind eyes), errors the logarithmic
colours of KITTI's development kit of 2015 (io_disp.h and log_colormap.h as atinfinity/devkit_scene_flow has them, read
not copied). Differs: a prediction that is not finite counts as the largest error; the kit leaves it black.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Disparity = NDArray[np.floating]
Mask = NDArray[np.bool_]

UNKNOWN = (128, 128, 128)
"""Of pixels of which no disparity is known: a grey that is in neither scale."""

ERROR_BOUNDS = (0.1875, 0.375, 0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 48.0)
"""Pixels: where error colour i ends. Where the truth is above 60, 3 stands for 5 % of it; what D1 counts is red."""
ERROR_COLOURS: Pixels = np.array(
    [
        (49, 54, 149), (69, 117, 180), (116, 173, 209), (171, 217, 233), (224, 243, 248),
        (254, 224, 144), (253, 174, 97), (244, 109, 67), (215, 48, 39), (165, 0, 38),
    ],
    np.uint8,
)  # fmt: skip
"""R, G, B: blue is good, red is bad."""


def disparity_picture(
    disparity: Disparity, valid: Mask | None = None, *, low: float = 0.0, high: float | None = None
) -> Pixels:
    """RGB [H, W, 3]: dark is `low` (far), bright is `high` (near); what lies beyond has the end's colour.

    Args:
        disparity: [H, W], pixels.
        valid: bool [H, W], the others are grey; where the disparity is finite, if None.
        low, high: pixels, the same for pictures that are to be compared; `high` is `largest(disparity, valid)` if None.
    Raises:
        ValueError: shapes differ, or low is not below high.
    """
    known = _known(disparity, valid)
    high = largest(disparity, known) if high is None else high
    if not low < high:
        raise ValueError(f"low={low:g} must be below high={high:g}: the range of disparities in pixels")
    share = (np.where(known, disparity, low) - low) / (high - low)
    steps = np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return np.where(known[..., None], disparity_colours()[steps], np.array(UNKNOWN, np.uint8))


def error_picture(
    disparity: Disparity, truth: Disparity, valid: Mask | None = None, nonoccluded: Mask | None = None
) -> Pixels:
    """RGB [H, W, 3] of the errors in KITTI's colours.

    Args:
        disparity, truth: [H, W], pixels.
        valid: bool [H, W], where the truth is known, the others are grey; where it is finite, if None.
        nonoccluded: bool [H, W]; what the right view does not see is half as bright.
    Raises:
        ValueError: shapes differ.
    """
    if disparity.shape != truth.shape:
        raise ValueError(f"the disparity map has shape {list(disparity.shape)}, its truth {list(truth.shape)}")
    known = _known(truth, valid)
    wanted = np.where(known, truth, 0.0).astype(np.float64)
    error = np.abs(np.where(np.isfinite(disparity), disparity, np.inf) - wanted)
    # KITTI's D1 counts what is above 3 pixels and above 5 %: the smaller of the two excesses decides.
    pixels = 3 * np.minimum(error / 3, error / np.maximum(0.05 * np.abs(wanted), 1e-12))
    colours = ERROR_COLOURS[np.searchsorted(ERROR_BOUNDS, pixels, side="right")]
    if nonoccluded is not None:
        if nonoccluded.shape != truth.shape:
            raise ValueError(f"nonoccluded has shape {list(nonoccluded.shape)}, the truth {list(truth.shape)}")
        colours = np.where(nonoccluded[..., None], colours, colours // 2)
    return np.where(known[..., None], colours, np.array(UNKNOWN, np.uint8))


def largest(disparity: Disparity, valid: Mask | None = None) -> float:
    """The disparity that all but one in a thousand pixels stay below, 1 at least: the end of a scale of colours."""
    known = disparity[_known(disparity, valid)]
    return max(1.0, float(np.percentile(known, 99.9))) if known.size else 1.0


@lru_cache
def disparity_colours() -> Pixels:
    """[256, 3], RGB, from far to near."""
    import matplotlib

    return np.asarray(np.round(255 * matplotlib.colormaps["viridis"](np.arange(256))[:, :3]), np.uint8)


def _known(disparity: Disparity, valid: Mask | None) -> Mask:
    if disparity.ndim != 2 or (valid is not None and valid.shape != disparity.shape):
        shapes = list(disparity.shape), "none" if valid is None else list(valid.shape)
        raise ValueError(f"expected a disparity map [H, W] and its mask of one shape, got {shapes[0]} and {shapes[1]}")
    finite = np.isfinite(disparity)
    return finite if valid is None else finite & valid

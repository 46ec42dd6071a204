"""What one image adds to a stereo metric: sums over its pixels, which no batch size or process count can change."""

from __future__ import annotations

import torch
from torch import Tensor

THRESHOLDS = (0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
FIELDS = ("counted", "known", "absolute", *(f"bad-{t:g}" for t in THRESHOLDS), "D1")
"""Pixels that count; pixels with a positive truth; sum of |error|; pixels whose error is above each threshold; pixels
whose error is above 3 pixels and above 5 % of the truth."""


def error_sums(disparity: Tensor, truth: Tensor, counted: Tensor, known: Tensor) -> Tensor:
    """The sums of one image, float64 [len(FIELDS)], on the CPU.

    Args:
        disparity, truth: [H, W], pixels.
        counted: bool [H, W], the pixels that the protocol looks at.
        known: bool [H, W], where the truth is known.
    Raises:
        ValueError: shapes differ, or a truth that counts or is known is not finite.
    """
    shapes = {name: list(t.shape) for name, t in (("disparity", disparity), ("truth", truth), ("counted", counted))}
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        raise ValueError(f"the disparity map and its truth differ in shape: {shapes}; crop the padding off first")
    if not truth[counted | known].isfinite().all():
        raise ValueError("the truth holds NaN or infinity where it is known; mark such pixels as unknown")
    wanted = truth[counted].double()
    error = (disparity[counted].double() - wanted).abs()
    # A disparity that is NaN is wrong by any measure, and no number is above or below it.
    bad = [(~(error <= threshold)).sum() for threshold in THRESHOLDS]
    outlier = (~((error <= 3) | (error <= 0.05 * wanted))).sum()
    sums = [counted.sum(), (known & (truth > 0)).sum(), error.sum(), *bad, outlier]
    return torch.stack([value.double() for value in sums]).cpu()

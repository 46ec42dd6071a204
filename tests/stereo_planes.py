"""Pairs whose every pixel is known by formula: slanted planes, and a card in front of them."""

from __future__ import annotations

import numpy as np


def _texture(x, y):
    """Three smooth channels, 0..255, of real coordinates."""
    waves = [np.sin(x / 5.1 + k) * np.cos(y / 6.3 - k) + np.sin((x + 2 * y) / 11 + 2 * k) for k in range(3)]
    return 127.5 + 60 * np.stack(waves, axis=-1)


def plane_pair(height=60, width=90, slope_x=0.08, slope_y=0.05, nearest=4.0, card=None):
    """A raw sample of a plane of disparity nearest + slope_x * x + slope_y * y, and before it a card of disparity 20.

    Args:
        card: top, left, bottom, right in the left view; None leaves it out.
    """
    y, x = np.mgrid[:height, :width].astype(np.float64)
    # x_right = x - nearest - slope_x * x - slope_y * y, solved for x.
    source = (x + nearest + slope_y * y) / (1 - slope_x)
    left, right = _texture(x, y), _texture(source, y)
    disparity, right_disparity = nearest + slope_x * x + slope_y * y, source - x
    nonoccluded = disparity <= x
    if card is not None:
        top, first, bottom, last = card
        front = (y >= top) & (y < bottom) & (x >= first) & (x < last)
        behind = (y >= top) & (y < bottom) & (x >= first - 20) & (x < last - 20)
        left[front] = 255 - _texture(x * 1.3 + 50, y)[front]
        right[behind] = 255 - _texture((x + 20) * 1.3 + 50, y)[behind]
        partner = x - disparity
        hidden = (y >= top) & (y < bottom) & (partner > first - 21) & (partner < last - 20) & ~front
        nonoccluded = (nonoccluded & ~hidden) | (front & (x >= 20))
        disparity[front], right_disparity[behind] = 20, 20
    return {
        "left": np.rint(left).clip(0, 255).astype(np.uint8),
        "right": np.rint(right).clip(0, 255).astype(np.uint8),
        "disparity": disparity.astype(np.float32),
        "valid": np.ones((height, width), bool),
        "nonoccluded": nonoccluded,
        "right_disparity": right_disparity.astype(np.float32),
        "name": "plane",
    }


def warp_errors(sample, where=None):
    """|left - right(x - d)| in grey levels, per counted pixel, the right view between pixels linear; plain loops.

    Args:
        where: bool [H, W]; valid and nonoccluded if None.
    """
    left, right, disparity = sample["left"], sample["right"], sample["disparity"]
    counted = sample["valid"] & sample["nonoccluded"] if where is None else where
    height, width = disparity.shape
    errors = []
    for row in range(height):
        for column in range(width):
            if not counted[row, column]:
                continue
            partner = float(column - disparity[row, column])
            low = int(np.floor(partner))
            part = partner - low
            low, high = min(max(low, 0), width - 1), min(max(low + 1, 0), width - 1)
            seen = right[row, low] * (1 - part) + right[row, high] * part
            errors.append(np.abs(left[row, column] - seen).max())
    return np.array(errors)

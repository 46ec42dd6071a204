"""Attention maps over the picture that they look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.tiles import Pixels, displayed_size, nearest, resized

_LOWEST, _HIGHEST = 1.0, 99.0  # percentiles that a normalised picture is stretched between
_FADED = 0.45  # of the grey picture, where the weights are 0
_OPAQUE = 0.8  # of the colours, where they are highest
_RING = 5  # pixels


def seen_picture(normalised: NDArray[np.floating]) -> Pixels:
    """RGB [H, W, 3] of what a network is given, [3, H, W] (or of another number of channels, in grey): stretched."""
    channels = normalised if len(normalised) == 3 else normalised.mean(axis=0, keepdims=True).repeat(3, axis=0)
    low, high = np.percentile(channels, [_LOWEST, _HIGHEST])
    stretched = (channels - low) / max(high - low, 1e-6)
    return np.asarray(np.clip(255 * stretched, 0, 255).transpose(1, 2, 0), np.uint8)


def heat_picture(picture: Pixels, weights: NDArray[np.floating]) -> Pixels:
    """The weights [h, w] over the grey picture [H, W, 3], black through violet and orange to yellow at the highest.

    Shown as large as pictures of a page are, each weight a block of its own; where it is nan the picture is bare.
    """
    import matplotlib

    size = displayed_size(*picture.shape[:2])
    grey = np.asarray(cv2.cvtColor(cv2.cvtColor(resized(picture, size), cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB))
    blocks = nearest(np.asarray(weights, np.float64), size)
    known = np.isfinite(blocks)
    highest = float(np.max(blocks, where=known, initial=0.0))
    share = np.where(known, np.clip(blocks / highest, 0, 1) if highest > 0 else 0.0, 0.0)
    colours = 255 * matplotlib.colormaps["inferno"](share)[..., :3]
    opacity = (_OPAQUE * np.sqrt(share))[..., None]
    mixed = opacity * colours + (1 - opacity) * _FADED * grey
    return np.asarray(np.where(known[..., None], np.round(mixed), grey), np.uint8)


def marked(picture: Pixels, points: Sequence[tuple[float, float]], numbers: Sequence[int] = ()) -> Pixels:
    """The picture with a ring at each point (x and y as shares of it), and its number beside it if there is one."""
    shown = np.ascontiguousarray(picture)
    height, width = shown.shape[:2]
    for index, (x, y) in enumerate(points):
        place = (min(int(x * width), width - 1), min(int(y * height), height - 1))
        for radius, colour, thickness in ((_RING, (0, 0, 0), 4), (_RING, (80, 255, 120), 2)):
            cv2.circle(shown, place, radius, colour, thickness, cv2.LINE_AA)
        if numbers:
            right = place[0] + 26 < width
            corner = (place[0] + (9 if right else -21), min(max(place[1] + 5, 14), height - 4))
            for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
                text = str(numbers[index])
                cv2.putText(shown, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.55, colour, thickness, cv2.LINE_AA)
    return shown

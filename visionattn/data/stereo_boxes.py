"""Boxes of made-up stereo scenes: cuboids in space, as the flat faces that the left view sees."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.data.stereo_outlines import Mask
from visionattn.data.stereo_surfaces import STEEPEST, Plane

Face = tuple[Plane, Mask, tuple[int, int]]

_CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))
_RINGS = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]])
_FOCAL_SHARE = 0.6  # of the width: a wide lens, so that depth shows
_INSET = 0.4  # pixels; OpenCV's anti-aliased fill reaches further than that over an outline, so no seam opens


def box_faces(
    rng: np.random.Generator,
    size: tuple[int, int],
    center: tuple[float, float],
    disparity: float,
    radius: float,
    near: float,
) -> list[Face]:
    """The faces of a turned cuboid that the left view sees: plane, cover, and x, y of the cover's first pixel.

    Args:
        size: H, W of the view.
        center: x, y of its middle.
        disparity: of its middle, pixels.
        radius: about half its size in the picture, pixels.
        near: the largest disparity that it may have; nothing is given of one that would come nearer, or whose visible
            faces are steeper than STEEPEST.
    """
    focal = _FOCAL_SHARE * size[1]
    middle = np.array([size[1] / 2, size[0] / 2])
    depth = 1 / disparity  # in units of focal length times baseline
    place = np.array([*(np.array(center) - middle) / focal, 1.0]) * depth
    halves = rng.uniform(0.4, 1.0, 3) * radius / focal * depth
    corners = place + (_CORNERS * halves) @ _rotation(rng).T  # [8, 3]
    if (corners[:, 2] * near <= 1).any():
        return []
    pixels = corners[:, :2] / corners[:, 2:] * focal + middle
    disparities = 1 / corners[:, 2]
    faces = []
    for ring in _RINGS:
        points = corners[ring]
        outward = points.mean(axis=0) - place
        if outward @ points.mean(axis=0) >= 0:
            continue  # seen from behind
        right, down, at = np.linalg.lstsq(np.c_[pixels[ring], np.ones(4)], disparities[ring], rcond=None)[0]
        if abs(right) > STEEPEST:
            return []
        faces.append((Plane(float(at), float(right), float(down)), *_cover(pixels[ring])))
    return faces


def _cover(polygon: NDArray[np.float64]) -> tuple[Mask, tuple[int, int]]:
    """A convex polygon's mask and x, y of its first pixel."""
    around = polygon - polygon.mean(axis=0)
    polygon = polygon - _INSET * around / np.maximum(np.hypot(*around.T), 1e-6)[:, None]
    low = np.floor(polygon.min(axis=0)).astype(int) - 2
    width, height = np.ceil(polygon.max(axis=0)).astype(int) + 3 - low
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.round((polygon - low) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    return mask, (int(low[0]), int(low[1]))


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    turned, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return np.asarray(turned)

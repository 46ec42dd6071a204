"""Surfaces of made-up stereo scenes against their formulas, in double precision and plain python."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from visionattn.data.stereo_boxes import box_faces
from visionattn.data.stereo_scenes import Shaper, bulging, folded, tilted
from visionattn.data.stereo_surfaces import STEEPEST, Plane, Quadric, Surface, Waves

SURFACES: dict[str, tuple[Surface, object]] = {
    "plane": (Plane(12.0, 0.3, -0.1), lambda x, y: 12 + 0.3 * x - 0.1 * y),
    "dome": (
        Quadric(Plane(20.0, -0.1, 0.05), (60.0, 40.0), (50.0, 45.0), 9.0),
        lambda x, y: 20 - 0.1 * x + 0.05 * y + 9 * (1 - ((x - 60) / 50) ** 2 - ((y - 40) / 45) ** 2),
    ),
    "bowl": (
        Quadric(Plane(30.0), (55.0, 35.0), (60.0, 50.0), -11.0),
        lambda x, y: 30 - 11 * (1 - ((x - 55) / 60) ** 2 - ((y - 35) / 50) ** 2),
    ),
    "cylinder": (
        Quadric(Plane(15.0, 0.05, 0.0), (50.0, 40.0), (math.inf, 40.0), 6.0),
        lambda x, y: 15 + 0.05 * x + 6 * (1 - ((y - 40) / 40) ** 2),
    ),
    "folds": (
        Waves(Plane(18.0, 0.1, 0.1), 3.0, 50.0, 0.4, 1.0),
        lambda x, y: (
            18 + 0.1 * x + 0.1 * y + 3 * math.sin(math.tau * (x * math.cos(0.4) + y * math.sin(0.4)) / 50 + 1.0)
        ),
    ),
}


def _grid(columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return columns.astype(np.float32)[None], rows.astype(np.float32)[:, None]


@pytest.mark.parametrize("name", SURFACES)
def test_a_surface_is_its_formula(name: str) -> None:
    surface, formula = SURFACES[name]
    columns, rows = np.linspace(5.3, 104.9, 9), np.arange(0, 80, 13)
    x, y = _grid(columns, rows)
    disparity, slope = surface.disparity(x, y), np.broadcast_to(surface.slope(x, y), (len(rows), len(columns)))
    assert disparity.dtype == np.float32
    for i, row in enumerate(rows.tolist()):
        for j, column in enumerate(columns.tolist()):
            assert disparity[i, j] == pytest.approx(formula(column, row), abs=2e-4)
            rise = (formula(column + 1e-4, row) - formula(column - 1e-4, row)) / 2e-4
            assert slope[i, j] == pytest.approx(rise, abs=1e-4)


@pytest.mark.parametrize("name", SURFACES)
def test_the_right_view_sees_a_point_where_its_disparity_puts_it(name: str) -> None:
    surface, formula = SURFACES[name]
    columns, rows = np.linspace(11, 99, 23), np.arange(3, 77, 9)
    in_right = np.array([[x - formula(x, y) for x in columns] for y in rows], np.float32)
    found = surface.left_of(in_right, rows.astype(np.float32)[:, None])
    np.testing.assert_allclose(found, np.broadcast_to(columns, found.shape), atol=2e-3)


def test_far_from_a_surface_the_right_view_stays_on_its_side() -> None:
    x, y = _grid(np.array([-500.0, -150.0, 250.0, 900.0]), np.array([40]))
    for surface, _ in SURFACES.values():
        found = surface.left_of(x, y)[0]
        assert (found[:2] < 10).all()
        assert (found[2:] > 100).all()


@pytest.mark.parametrize("shaped", [tilted, bulging, folded])
def test_random_surfaces_keep_to_their_room_and_are_not_too_steep(shaped: Shaper) -> None:
    rng = np.random.default_rng(3)
    across, down = (-20.0, 83.0), (11.0, 61.0)
    x, y = _grid(np.linspace(*across, 60), np.linspace(*down, 40))
    spans, steepest = [], []
    for _ in range(150):
        middle, room = 30.0, rng.uniform(1, 25)
        surface = shaped(rng, middle, room, across, down)
        disparity = surface.disparity(x, y)
        spans.append(float(np.abs(disparity - middle).max() / room))
        steepest.append(float(np.abs(surface.slope(x, y)).max()))
        np.testing.assert_allclose(surface.left_of(x - disparity, y), np.broadcast_to(x, disparity.shape), atol=5e-3)
    assert max(spans) <= 1.001
    assert max(steepest) <= STEEPEST + 1e-3
    assert np.mean(spans) > 0.3, "surfaces are flat"
    assert max(steepest) > 0.25, "none is slanted"


def test_boxes_are_cuboids_in_space() -> None:
    """The visible faces' normals, recovered through the camera, are at right angles; the faces meet in edges."""
    rng = np.random.default_rng(0)
    size, focal = (240, 320), 0.6 * 320
    boxes = [box_faces(rng, size, (100.0, 90.0), 30.0, 50.0, 64.0) for _ in range(60)]
    seen = [box for box in boxes if len(box) >= 2]
    assert len(seen) > 20
    assert {len(box) for box in seen} >= {2, 3}
    for box in seen:
        normals = []
        for plane, mask, (left, top) in box:
            # at + right * (160 + focal X / Z) + down * (120 + focal Y / Z) = 1 / Z
            normal = np.array([plane.right, plane.down, (plane.at + 160 * plane.right + 120 * plane.down) / focal])
            normals.append(normal / np.linalg.norm(normal))
            rows, columns = np.nonzero(mask >= 128)
            disparity = plane.at + plane.right * (columns + left) + plane.down * (rows + top)
            assert disparity.min() > 0
            assert disparity.max() < 64.5
            assert abs(plane.right) <= STEEPEST
        if len(box) == 3:  # no seam between the faces: together they are one solid without a hole
            whole = np.zeros((400, 400), np.uint8)
            for _, mask, (left, top) in box:
                window = whole[top + 60 : top + 60 + mask.shape[0], left + 60 : left + 60 + mask.shape[1]]
                np.maximum(window, (mask >= 128).astype(np.uint8), out=window)
            contours, _ = cv2.findContours(whole, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
            assert len(contours) == 1
        cosines = np.array(normals) @ np.array(normals).T - np.eye(len(normals))
        assert np.abs(cosines).max() < 1e-3

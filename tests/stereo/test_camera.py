"""Depth and points against a pair of pinhole cameras that is projected point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from visionattn.stereo.camera import StereoCamera


@pytest.mark.parametrize("centre", [None, (3.25, 9.5)])
@pytest.mark.parametrize("offset", [0.0, 31.1, -2.5])
def test_points_project_back_to_their_pixels(offset: float, centre: tuple[float, float] | None) -> None:
    camera = StereoCamera(focal=250.0, baseline=0.193, offset=offset, centre=centre)
    disparity = torch.from_numpy(np.random.default_rng(0).uniform(5, 60, (11, 15)))
    depth = camera.depth(disparity)
    points = camera.points(depth)
    left_x, left_y = centre or (7.0, 5.0)
    for row, column in np.ndindex(11, 15):
        x, y, z = points[row, column].tolist()
        assert z == pytest.approx(depth[row, column].item())
        assert 250.0 * x / z + left_x == pytest.approx(column, abs=1e-9)
        assert 250.0 * y / z + left_y == pytest.approx(row, abs=1e-9)
        right = 250.0 * (x - 0.193) / z + left_x + offset  # the right camera stands 0.193 m to the right
        assert column - right == pytest.approx(disparity[row, column].item(), abs=1e-9)


def test_what_has_no_disparity_is_infinitely_far() -> None:
    depth = StereoCamera(100.0, 0.5).depth(torch.tensor([2.0, 0.0, -1.0]))
    assert depth.tolist() == [25.0, math.inf, math.inf]
    assert StereoCamera(100.0, 0.5, offset=3.0).depth(torch.tensor([2.0, 0.0, -3.0])).tolist() == [
        10.0,
        pytest.approx(50 / 3),
        math.inf,
    ]


@pytest.mark.parametrize(
    ("focal", "baseline", "named"), [(0, 1, "focal=0"), (1, -2, "baseline=-2"), (math.nan, 1, "focal=nan")]
)
def test_impossible_cameras_are_refused(focal: float, baseline: float, named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be a positive number of (pixels|metres)"):
        StereoCamera(focal, baseline)

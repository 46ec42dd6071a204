from __future__ import annotations

import numpy as np
import pytest
from stereo_planes import plane_pair

from visionattn.data.randomness import seeded
from visionattn.stereo.transforms_right_view import RightEraser, RightRowShift, RightTilt


def test_rectangles_of_the_mean_colour():
    before = plane_pair()
    mean = before["right"].mean(axis=(0, 1))
    areas = []
    for seed in range(40):
        with seeded([seed]):
            after = RightEraser(number=(1, 1), sides=(10, 14), p=1.0)(before)
        changed = (after["right"] != before["right"]).any(axis=2)
        rows, columns = np.nonzero(changed)
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert changed.sum() > 0.9 * height * width  # a rectangle, but for pixels of that colour before
        assert height <= 14
        assert width <= 14
        assert np.abs(after["right"][changed] - mean).max() <= 0.5
        areas.append((height, width))
        for key in ("left", "disparity", "valid", "right_disparity"):
            assert after[key] is before[key]
    inside = [area for area in areas if min(area) >= 10]
    assert {10, 14} <= {side for area in inside for side in area}


def test_erased_partner_is_not_seen():
    before = plane_pair(slope_x=0.0, slope_y=0.0, nearest=6.0)
    with seeded([4]):
        after = RightEraser(number=(1, 1), sides=(10, 10), p=1.0)(before)
    erased = (after["right"] != before["right"]).any(axis=2)
    lost = before["nonoccluded"] & ~after["nonoccluded"]
    rows, columns = np.nonzero(erased)
    wanted = np.zeros_like(lost)
    wanted[rows.min() : rows.max() + 1, columns.min() + 6 : columns.max() + 7] = True
    np.testing.assert_array_equal(lost, wanted)


def test_number_and_chance():
    before = plane_pair()
    with seeded([0]):
        results = [RightEraser(number=(1, 2), sides=(2, 3), p=0.5)(before)["right"] for _ in range(300)]
    assert np.mean([right is not before["right"] for right in results]) == pytest.approx(0.5, abs=0.09)
    most = max(int((right != before["right"]).any(axis=2).sum()) for right in results)
    assert 9 < most <= 18


def test_rows_up_and_down():
    before = plane_pair()
    shifts = set()
    for seed in range(60):
        with seeded([seed]):
            after = RightRowShift(rows=2)(before)
        fits = [
            rows
            for rows in range(-3, 4)
            if all(
                np.array_equal(after[key][3:-3], np.roll(before[key], rows, axis=0)[3:-3])
                for key in ("right", "right_disparity")
            )
        ]
        assert len(fits) == 1
        assert after["left"] is before["left"]
        assert after["disparity"] is before["disparity"]
        if fits[0] > 0:
            np.testing.assert_array_equal(after["right"][: fits[0]], before["right"][:1].repeat(fits[0], axis=0))
        shifts.update(fits)
    assert shifts == {-2, -1, 0, 1, 2}


def test_tilt_moves_by_little():
    """A ramp whose grey level is its row: what a pixel became says how far it moved."""
    ramp = np.arange(0, 200, 2, dtype=np.uint8)[:, None].repeat(150, axis=1)
    moved = []
    for seed in range(40):
        with seeded([seed]):
            after = RightTilt(degrees=1.0, rows=3.0, p=1.0)({"left": ramp, "right": ramp})
        rows = (after["right"].astype(float) - ramp)[10:-10, 10:-10] / 2
        moved.append((np.abs(rows).max(), np.ptp(rows)))
        assert after["left"] is ramp
    largest, tilted = np.array(moved).T
    assert largest.max() < 3 + 150 * np.tan(np.radians(1)) + 0.6
    assert largest.max() > 2.5
    assert tilted.max() > 1.5
    with seeded([0]):
        level = RightTilt(degrees=0.0, rows=0.0, p=1.0)({"left": ramp, "right": ramp})["right"]
    np.testing.assert_array_equal(level, ramp)


def test_tilt_drops_what_would_have_to_turn():
    assert "right_disparity" not in RightTilt(p=1.0)(plane_pair())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RightEraser(number=(0, 2)), r"number=\(0, 2\) must be \(least, greatest\), from 1 on"),
        (lambda: RightEraser(sides=(9, 3)), r"sides=\(9, 3\) must be"),
        (lambda: RightRowShift(rows=0), "rows=0 must be a whole number"),
        (lambda: RightTilt(degrees=9), "degrees=9 must be from 0 to 5"),
    ],
)
def test_wrong_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Disparities and errors as colours, pixel by pixel."""

from __future__ import annotations

import math

import matplotlib
import numpy as np
import pytest

from visionattn.visualization.colour_bar import colour_bar, round_marks
from visionattn.visualization.disparity import UNKNOWN, disparity_picture, error_picture, largest
from visionattn.visualization.disparity_panel import disparity_panel, disparity_tile, disparity_tiles

# log_colormap.h of KITTI's development kit: from, to (of min(error / 3, 20 * error / truth)), red, green, blue.
KITTI = [
    (0, 0.0625, 49, 54, 149), (0.0625, 0.125, 69, 117, 180), (0.125, 0.25, 116, 173, 209), (0.25, 0.5, 171, 217, 233),
    (0.5, 1, 224, 243, 248), (1, 2, 254, 224, 144), (2, 4, 253, 174, 97), (4, 8, 244, 109, 67), (8, 16, 215, 48, 39),
    (16, 1e9, 165, 0, 38),
]  # fmt: skip


def kitti_colour(disparity: float, truth: float, seen: bool) -> tuple[int, ...]:
    error = abs(disparity - truth)
    normalised = min(error / 3, 20 * error / abs(truth))
    (colour,) = (row[2:] for row in KITTI if row[0] <= normalised < row[1])
    return tuple(colour) if seen else tuple(int(value * 0.5) for value in colour)


def test_disparities_are_matplotlibs_colours_and_what_is_unknown_is_grey() -> None:
    rng = np.random.default_rng(0)
    disparity = rng.uniform(-5, 50, (13, 17)).astype(np.float32)
    disparity[3, 4] = np.inf
    valid = rng.random((13, 17)) < 0.7
    picture = disparity_picture(disparity, valid, low=2.0, high=40.0)
    colours = matplotlib.colormaps["viridis"]
    for row, column in np.ndindex(13, 17):
        expected = UNKNOWN
        if valid[row, column] and math.isfinite(disparity[row, column]):
            share = min(max((float(disparity[row, column]) - 2.0) / 38.0, 0.0), 1.0)
            expected = tuple(round(255 * part) for part in colours(round(255 * share))[:3])
        assert tuple(picture[row, column].tolist()) == expected
    grey = picture.max(-1) == picture.min(-1)
    np.testing.assert_array_equal(grey, ~(valid & np.isfinite(disparity)))


def test_a_fixed_range_makes_pictures_comparable() -> None:
    one, two = np.full((2, 2), 10.0), np.full((2, 2), 20.0)
    assert not np.array_equal(disparity_picture(one, high=40), disparity_picture(two, high=40))
    np.testing.assert_array_equal(disparity_picture(one, high=40), disparity_picture(two, high=80))


def test_the_range_ends_where_nearly_all_disparities_do() -> None:
    disparity = np.full((100, 100), 30.0)
    disparity[0, :5] = 4000.0
    disparity[5] = np.nan
    assert largest(disparity) == 30.0
    assert largest(disparity, np.zeros((100, 100), bool)) == 1.0
    assert largest(np.zeros((4, 4))) == 1.0


@pytest.mark.parametrize("scale", [30.0, 200.0])
def test_errors_have_kittis_colours(scale: float) -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.1, scale, (40, 50))
    disparity = truth + rng.choice([-1, 1], (40, 50)) * np.exp(rng.uniform(math.log(0.01), math.log(200), (40, 50)))
    valid, seen = rng.random((2, 40, 50)) < 0.8
    picture = error_picture(disparity, truth, valid, seen)
    found = set()
    for row, column in np.ndindex(40, 50):
        expected = UNKNOWN
        if valid[row, column]:
            expected = kitti_colour(disparity[row, column], truth[row, column], bool(seen[row, column]))
        assert tuple(picture[row, column].tolist()) == expected
        found.add(expected)
    assert len(found) > 15, "hardly any colour was tried"


def test_a_bound_is_the_first_error_of_the_next_colour() -> None:
    errors = np.array([[3 * row[0] for row in KITTI[1:]]])
    picture = error_picture(10 + errors, np.full_like(errors, 10.0))
    assert [tuple(colour) for colour in picture[0].tolist()] == [row[2:] for row in KITTI[1:]]


def test_what_d1_counts_is_red_and_nothing_else() -> None:
    truth = np.array([[10.0, 10.0, 100.0, 100.0, 100.0, 0.0]])
    disparity = np.array([[12.9, 13.1, 104.9, 105.1, np.nan, 0.0]])
    picture = error_picture(disparity, truth)[0].astype(int)
    assert (picture[:, 0] > picture[:, 2]).tolist() == [False, True, False, True, True, False]
    assert tuple(picture[4]) == KITTI[-1][2:]


def test_marks_are_round_numbers_at_their_places() -> None:
    assert [number for _, number in round_marks(0, 63)] == ["0", "20", "40", "60"]
    assert [number for _, number in round_marks(0, 1)] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert [number for _, number in round_marks(0, 2000)] == ["0", "500", "1000", "1500", "2000"]
    for low, high in ((0, 63), (3.3, 4.1), (0, 0.004), (-7, 1200)):
        marks = round_marks(low, high)
        assert 2 <= len(marks) <= 7
        for place, number in marks:
            assert 0 <= place <= 1 + 1e-9
            assert float(number) == pytest.approx(low + place * (high - low), rel=1e-5, abs=1e-9)


def test_a_bar_has_every_colour_once_in_order() -> None:
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    bar = colour_bar(colours, [(1 / 3, "1"), (2 / 3, "2")], "px", 300, 14)
    band = bar[12]
    assert tuple(band[50]) == (250, 0, 0)
    assert tuple(band[150]) == (0, 250, 0)
    assert tuple(band[250]) == (0, 0, 250)
    assert bar.shape[1] == 300
    written = (bar[-14:] < 128).any(axis=(0, 2))
    assert 80 < np.flatnonzero(written).min() < np.flatnonzero(written).max() < 225


def test_numbers_never_touch() -> None:
    marks = [(index / 40, f"{index * 1000}") for index in range(41)]
    bar = colour_bar(np.zeros((2, 3), np.uint8), marks, "px", 400, 14)
    written = (bar[-16:] < 128).any(axis=(0, 2))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], written.astype(int), [0]])))
    gaps = edges[2::2] - edges[1:-1:2]
    assert (gaps >= 1).all()
    assert (gaps >= 4).sum() >= 5  # between numbers


def _pair(height: int, width: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng([height, width])
    truth = rng.uniform(1, 60, (height, width)).astype(np.float32)
    left = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return left, truth + rng.normal(0, 2, truth.shape).astype(np.float32), truth, rng.random((height, width)) < 0.9


def test_tiles_are_the_pictures_above_their_scales() -> None:
    left, disparity, truth, valid = _pair(300, 280)
    tiles = dict(disparity_tiles(left, disparity, truth, valid))
    error = np.abs(disparity - truth)[valid]
    d1 = ((error > 3) & (error > 0.05 * truth[valid])).mean()
    assert list(tiles) == ["left", "truth", "disparity", f"error: EPE {error.mean():.2f} px, D1 {d1:.1%}"]
    high = largest(truth, valid)
    np.testing.assert_array_equal(tiles["left"], left)
    np.testing.assert_array_equal(tiles["truth"][:300], disparity_picture(truth, valid, high=high))
    np.testing.assert_array_equal(tiles["disparity"][:300], disparity_picture(disparity, high=high))
    np.testing.assert_array_equal(list(tiles.values())[3][:300], error_picture(disparity, truth, valid))
    np.testing.assert_array_equal(tiles["truth"][300:], tiles["disparity"][300:])
    assert tiles["truth"].shape[0] > 330


def test_without_truth_there_are_two_tiles() -> None:
    left, disparity, _, _ = _pair(256, 301)
    assert [title for title, _ in disparity_tiles(left, disparity)] == ["left", "disparity"]
    np.testing.assert_array_equal(
        disparity_tile(disparity, high=60.0), disparity_tiles(left, disparity, high=60.0)[1][1]
    )


def test_a_lasers_points_are_drawn_larger() -> None:
    truth = np.full((9, 9), 8.0)
    valid = np.zeros((9, 9), bool)
    valid[4, 4] = True
    tile = disparity_tile(truth, valid, high=8.0)[:9, :9]
    coloured = (tile != UNKNOWN).any(-1)
    assert coloured.sum() == 9
    assert coloured[3:6, 3:6].all()


@pytest.mark.parametrize("size", [(1, 1), (2, 700), (700, 1), (370, 1240), (540, 960), (500, 741), (2000, 2900)])
def test_any_size_becomes_a_picture_for_a_screen(size: tuple[int, int]) -> None:
    left, disparity, truth, valid = _pair(*size)
    panel = disparity_panel(left, disparity, truth, valid)
    assert panel.dtype == np.uint8
    assert panel.shape[1] <= 1800
    assert panel.shape[0] <= 1850


def test_no_pixel_with_truth_is_no_reason_to_stop() -> None:
    left, disparity, truth, _ = _pair(20, 30)
    nothing = np.zeros((20, 30), bool)
    assert [title for title, _ in disparity_tiles(left, disparity, truth, nothing)][3] == "error (no truth)"
    assert disparity_panel(left, disparity, truth, nothing).size


def test_what_does_not_fit_is_refused() -> None:
    left, disparity, truth, valid = _pair(20, 30)
    with pytest.raises(ValueError, match=r"the truth has shape \[20, 29\], the left image \[20, 30\]"):
        disparity_panel(left, disparity, truth[:, 1:], valid)
    with pytest.raises(ValueError, match=r"expected an 8-bit RGB image of shape \[H, W, 3\], got float64"):
        disparity_panel(left / 255, disparity)
    with pytest.raises(ValueError, match=r"low=3 must be below high=3"):
        disparity_picture(disparity, low=3, high=3)
    with pytest.raises(ValueError, match=r"has shape \[20, 30\], its truth \[19, 30\]"):
        error_picture(disparity, truth[1:])
    with pytest.raises(ValueError, match=r"nonoccluded has shape \[20, 29\]"):
        error_picture(disparity, truth, valid, valid[:, 1:])
    with pytest.raises(ValueError, match=r"mask of one shape, got \[20, 30\] and \[20, 29\]"):
        disparity_picture(disparity, valid[:, 1:])

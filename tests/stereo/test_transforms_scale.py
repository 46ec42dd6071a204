from __future__ import annotations

import numpy as np
import pytest
from stereo_planes import plane_pair

from visionattn.data.randomness import seeded
from visionattn.stereo.transforms_scale import StereoRandomScale, StereoResize, resized_disparity

SIZES = [(60, 135), (90, 90), (47, 61), (133, 119), (30, 45)]


def plane_at(size, before=(60, 90)):
    """The plane's disparity at the pixel centres of another size, in pixels of that size."""
    y, x = ((np.arange(new) + 0.5) * old / new - 0.5 for new, old in zip(size, before, strict=True))
    return (4 + 0.08 * x[None] + 0.05 * y[:, None]) * size[1] / before[1]


@pytest.mark.parametrize("size", SIZES)
def test_slope_stays_a_slope(size):
    after = StereoResize(size)(plane_pair())
    error = np.abs(after["disparity"] - plane_at(size))
    assert error[2:-2, 2:-2].max() < 1e-3
    assert error.max() < 0.1 * size[1] / 90  # the border's half pixel
    assert after["valid"].all()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_lies_between_two_surfaces(size):
    card = (15, 45, 40, 70)
    after = StereoResize(size)(plane_pair(card=card))
    ratio = size[1] / 90
    to_plane = np.abs(after["disparity"] - plane_at(size))
    to_card = np.abs(after["disparity"] - 20 * ratio)
    assert to_card.min() < 1e-3
    # The nearest pixel's centre is at most half a pixel off in x and in y: 0.065 pixels of the plane's slope.
    assert np.minimum(to_plane, to_card).max() < 0.066 * ratio + 1e-3


@pytest.mark.parametrize("size", SIZES)
def test_sparse_truth_stays_what_was_measured(size):
    rng = np.random.default_rng(0)
    sample = plane_pair()
    sample["disparity"] = rng.permutation(60 * 90).reshape(60, 90).astype(np.float32) + 1  # each value once
    sample["valid"] = rng.random((60, 90)) < 0.2
    sample["disparity"][~sample["valid"]] = np.nan
    after = StereoResize(size)(sample)
    assert 0.1 < after["valid"].mean() < 0.3
    kept = after["disparity"][after["valid"]] / np.float32(size[1] / 90)
    measured = sample["disparity"][sample["valid"]]
    assert np.abs(kept[:, None] - measured).min(axis=1).max() < 1e-3 * 60 * 90 / 1000
    assert (after["disparity"][~after["valid"]] == 0).all()


def test_far_away_what_is_unknown_is_not_mixed_in():
    """Its zeros differ from the truth by less than a surface's neighbours may."""
    sample = plane_pair(slope_x=0.0, slope_y=0.0, nearest=0.8)
    sample["valid"] = np.random.default_rng(0).random((60, 90)) < 0.5
    sample["disparity"][~sample["valid"]] = 0
    after = StereoResize((77, 135))(sample)
    np.testing.assert_allclose(after["disparity"][after["valid"]], 1.2, rtol=1e-6)


def test_centre_of_a_pixel_decides_what_is_nearest():
    """By loops: the source pixel whose centre is nearest; of two that are as near, either."""
    values = np.random.default_rng(0).permutation(9 * 14).reshape(9, 14).astype(np.float32) * 10
    for size in [(9, 21), (13, 5), (4, 40)]:
        after = resized_disparity(values, np.ones(values.shape, bool), size)
        for row in range(size[0]):
            for column in range(size[1]):
                y, x = (row + 0.5) * 9 / size[0] - 0.5, (column + 0.5) * 14 / size[1] - 0.5
                allowed = [
                    values[i, j] for i in range(9) for j in range(14) if max(abs(i - y), abs(j - x)) <= 0.5 + 1e-6
                ]
                assert after[row, column] in allowed


def test_range_of_the_drawn_sizes():
    scale = StereoRandomScale(octaves=(-0.5, 0.5), stretch_x=(0.0, 0.5))
    sample = {key: np.zeros((200, 400), np.uint8) for key in ("left", "right")}
    with seeded([0]):
        sizes = np.array([scale(sample)["left"].shape for _ in range(300)])
    heights, widths = np.log2(sizes[:, 0] / 200), np.log2(sizes[:, 1] / 400)
    assert heights.min() == pytest.approx(-0.5, abs=0.02)
    assert heights.max() == pytest.approx(0.5, abs=0.02)
    stretch = widths - heights
    assert stretch.min() == pytest.approx(0, abs=0.02)
    assert stretch.max() == pytest.approx(0.5, abs=0.02)
    assert abs(np.corrcoef(heights, stretch)[0, 1]) < 0.2
    assert np.median(heights) == pytest.approx(0, abs=0.08)  # even in octaves, not in factors


def test_how_often_and_how_small():
    sample = {key: np.zeros((200, 400), np.uint8) for key in ("left", "right")}
    rarely = StereoRandomScale(octaves=(1, 1), stretch_x=(1, 1), stretch_p=0.3, p=0.4)
    with seeded([0]):
        widths = np.array([rarely(sample)["left"].shape[1] for _ in range(400)])
    assert set(widths) == {400, 800, 1600}
    assert (widths > 400).mean() == pytest.approx(0.4, abs=0.08)
    assert (widths == 1600).sum() / (widths > 400).sum() == pytest.approx(0.3, abs=0.11)
    with seeded([0]):
        least = [StereoRandomScale(octaves=(-2, -1), least=(150, 64))(sample)["left"].shape for _ in range(20)]
    assert {height for height, _ in least} == {150}
    assert all(100 <= width <= 200 for _, width in least)
    assert StereoRandomScale(octaves=(0, 0), least=(256, 1))(sample)["left"].shape == (256, 400)  # grows for the crop


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"octaves": (0.4, -0.2)}, r"octaves=\(0\.4, -0\.2\) must be \(least, greatest\) powers of two"),
        ({"stretch_y": (0.2,)}, r"stretch_y=\(0\.2,\) must be"),
        ({"p": 1.5}, r"p=1\.5 must be from 0 to 1"),
        ({"least": (3,)}, r"must be \(height, width\)"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        StereoRandomScale(**options)

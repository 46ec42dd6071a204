from __future__ import annotations

import numpy as np
import pytest
from stereo_planes import plane_pair, warp_errors

from visionattn.data.randomness import seeded
from visionattn.stereo.transforms_flip import StereoHorizontalFlip, StereoVerticalFlip

CARD = (15, 45, 40, 70)


def test_upside_down():
    before = plane_pair(card=CARD)
    after = StereoVerticalFlip(p=1.0)(before)
    for key in before.keys() - {"name"}:
        np.testing.assert_array_equal(after[key], before[key][::-1])


def test_mirror_swaps_the_views_and_the_disparities():
    before = plane_pair(card=CARD) | {"foreground": np.ones((60, 90), bool)}
    after = StereoHorizontalFlip(p=1.0)(before)
    np.testing.assert_array_equal(after["left"], before["right"][:, ::-1])
    np.testing.assert_array_equal(after["right"], before["left"][:, ::-1])
    np.testing.assert_array_equal(after["disparity"], before["right_disparity"][:, ::-1])
    np.testing.assert_array_equal(after["right_disparity"], before["disparity"][:, ::-1])
    assert "foreground" not in after  # was known of the other view


def test_twice_is_nothing():
    before = plane_pair(card=CARD)
    flip = StereoHorizontalFlip(p=1.0)
    after = flip(flip(before))
    for key in ("left", "right", "disparity", "valid", "right_disparity"):
        np.testing.assert_array_equal(after[key], before[key])
    # Found by comparing both disparities, it is the mask that is known by formula but at the card's border.
    assert (after["nonoccluded"] != before["nonoccluded"]).mean() < 0.01


def test_mirror_s_occlusions_are_real():
    after = StereoHorizontalFlip(p=1.0)(plane_pair(card=CARD))
    hidden = ~after["nonoccluded"]
    assert hidden[15:45].mean() > 0.1
    assert np.median(warp_errors(after, hidden & (np.arange(90) > 20))) > 20  # what is hidden does not match
    assert np.quantile(warp_errors(after), 0.98) < 3


def test_unknown_right_disparity_is_not_valid():
    before = plane_pair()
    before["right_disparity"][5, 80], before["right_disparity"][6, 80], before["valid"][7, 30] = 0, np.inf, False
    after = StereoHorizontalFlip(p=1.0)(before)
    assert not after["valid"][5:7, 9].any()
    assert (~after["valid"]).sum() == 2
    assert (after["disparity"][5:7, 9] == 0).all()
    assert after["right_disparity"][7, 59] == 0


def test_how_often():
    sample = {key: np.arange(6, dtype=np.uint8).reshape(2, 3) for key in ("left", "right")}
    for flip in (StereoVerticalFlip(p=0.1), StereoHorizontalFlip(p=0.1)):
        with seeded([0]):
            share = np.mean([flip(sample)["left"][0, 0] != 0 for _ in range(600)])
        assert share == pytest.approx(0.1, abs=0.04)


def test_data_without_a_right_disparity_is_refused_at_once():
    before = plane_pair()
    del before["right_disparity"]
    with pytest.raises(ValueError, match="plane: StereoHorizontalFlip needs the right view's disparity"):
        StereoHorizontalFlip(p=0.0)(before)
    with pytest.raises(ValueError, match=r"p=-1 must be from 0 to 1"):
        StereoVerticalFlip(p=-1)

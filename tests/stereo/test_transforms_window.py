from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from stereo_planes import plane_pair

from visionattn.data.randomness import seeded
from visionattn.stereo.transforms_window import (
    StereoBottomRightCrop,
    StereoCenterCrop,
    StereoPad,
    StereoRandomCrop,
)

MAPS = ("left", "right", "disparity", "valid", "right_disparity")


def assert_window(after, before, top, left):
    height, width = after["left"].shape[:2]
    for key in MAPS:
        np.testing.assert_array_equal(after[key], before[key][top : top + height, left : left + width], err_msg=key)


def test_fixed_windows():
    before = plane_pair()
    assert_window(StereoCenterCrop((41, 63))(before), before, 9, 13)
    assert_window(StereoBottomRightCrop((41, 63))(before), before, 19, 27)


def test_protocol_s_crop_of_a_scene_flow_frame():
    views = np.zeros((540, 960, 3), np.uint8)
    views[28:, :] = 7
    cut = StereoBottomRightCrop((512, 960))({"left": views, "right": views})["left"]
    assert cut.shape == (512, 960, 3)
    assert (cut == 7).all()


def test_bottom_right_of_a_smaller_sample_is_what_there_is():
    before = plane_pair()
    assert_window(StereoBottomRightCrop((512, 70))(before), before, 0, 20)


def test_every_window_is_as_likely():
    number = np.arange(5 * 6).reshape(5, 6)
    sample = {"left": number.astype(np.uint8), "right": number.astype(np.uint8), "disparity": number.astype(np.float32)}
    crop = StereoRandomCrop((4, 4))
    with seeded([0]):
        windows = Counter(int(crop(sample)["disparity"][0, 0]) for _ in range(600))
    assert set(windows) == {0, 1, 2, 6, 7, 8}
    assert min(windows.values()) > 70  # of 100 expected, 9.1 their standard deviation


def test_partner_outside_the_window_is_not_seen():
    before = plane_pair(slope_x=0.0, slope_y=0.0, nearest=6.0)
    after = StereoCenterCrop((40, 50))(before)
    np.testing.assert_array_equal(after["nonoccluded"], np.broadcast_to(np.arange(50) >= 6, (40, 50)))
    assert after["valid"].all()  # known it still is


def test_padding_is_above_and_to_the_right_and_not_valid():
    before = plane_pair() | {"foreground": np.ones((60, 90), bool)}
    after = StereoPad((64, 97))(before)
    for key in ("left", "right"):
        np.testing.assert_array_equal(after[key], np.pad(before[key], ((4, 0), (0, 7), (0, 0)), mode="edge"))
    for key in ("disparity", "valid", "nonoccluded", "foreground", "right_disparity"):
        np.testing.assert_array_equal(after[key], np.pad(before[key], ((4, 0), (0, 7))))


def test_padding_of_what_is_large_enough_is_nothing():
    before = plane_pair()
    assert StereoPad((60, 80))(before) is before


def test_crop_of_a_sample_that_is_too_small_one_way():
    before = plane_pair()
    with seeded([0]):
        after = StereoRandomCrop((70, 50))(before)
    assert after["left"].shape == (70, 50, 3)
    assert not after["valid"][:10].any()
    assert after["valid"][10:].all()


@pytest.mark.parametrize("size", [(0, 5), (5,), (5, 2.5), (3, 4, 5)])
def test_what_is_no_size(size):
    with pytest.raises(ValueError, match=r"must be \(height, width\) in pixels, as \(256, 512\)"):
        StereoRandomCrop(size)

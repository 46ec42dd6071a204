from __future__ import annotations

import cv2
import mmcv
import numpy as np
import pytest

from visionattn.data.resized_window import fitted_size, resized_window


def test_fitted_size_is_mmcv_s():
    rng = np.random.default_rng(0)
    for _ in range(2000):
        height, width = (int(side) for side in rng.integers(1, 3000, 2))
        scale = tuple(int(side) for side in rng.integers(1, 4100, 2))
        expected = mmcv.rescale_size((width, height), scale)
        assert fitted_size((height, width), scale)[::-1] == tuple(max(side, 1) for side in expected)


def window_of(rng, size):
    top, left = (int(rng.integers(0, side)) for side in size)
    return top, left, int(rng.integers(top + 1, size[0] + 1)), int(rng.integers(left + 1, size[1] + 1))


@pytest.mark.parametrize("channels", [(), (3,)])
def test_window_is_that_of_the_whole_resized_image(channels):
    """Noise, the worst there is: neighbours differ by up to 255, and a 256th of a pixel by one level."""
    rng = np.random.default_rng(1)
    worst, differing = 0, []
    for _ in range(600):
        image = rng.integers(0, 256, (*rng.integers(1, 90, 2), *channels), np.uint8)
        size = tuple(int(side) for side in rng.integers(1, 300, 2))
        window = window_of(rng, size)
        expected = cv2.resize(image, size[::-1])[window[0] : window[2], window[1] : window[3]]
        got = resized_window(image, size, window)
        assert got.shape == expected.shape
        error = np.abs(got.astype(int) - expected)
        worst = max(worst, error.max())
        differing.append(error.mean())
    assert worst <= 3
    assert np.mean(differing) < 0.2


def test_only_what_the_window_needs_is_read():
    """A pixel far from the window changes nothing in it, and costs nothing."""
    image = np.random.default_rng(2).integers(0, 256, (600, 900, 3), np.uint8)
    window = (700, 1000, 956, 1256)
    before = resized_window(image, (1003, 1507), window)
    image[:250] = image[:, :400] = 0
    np.testing.assert_array_equal(resized_window(image, (1003, 1507), window), before)

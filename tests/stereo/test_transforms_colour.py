from __future__ import annotations

import numpy as np
import pytest

from visionattn.data.randomness import seeded
from visionattn.stereo.transforms_colour import StereoColour

JITTER = {"type": "ColorJitter", "brightness": 0.5, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "p": 1.0}


def twins():
    view = np.random.default_rng(0).integers(40, 120, (13, 17, 3), np.uint8)
    return {"left": view, "right": view.copy(), "disparity": np.ones((13, 17), np.float32)}


def test_alike_or_each_for_itself():
    for asymmetric in (0.0, 1.0):
        colour = StereoColour([JITTER], asymmetric=asymmetric)
        for seed in range(5):
            with seeded([seed]):
                after = colour(twins())
            assert (after["left"] != twins()["left"]).any()
            assert np.array_equal(after["left"], after["right"]) == (asymmetric == 0)


def test_how_often_each_for_itself():
    colour = StereoColour([JITTER], asymmetric=0.2)
    with seeded([0]):
        after = [colour(twins()) for _ in range(400)]
    share = np.mean([not np.array_equal(sample["left"], sample["right"]) for sample in after])
    assert share == pytest.approx(0.2, abs=0.06)


def test_known_answer():
    """A gamma of exactly 2 on both views, by numpy."""
    gamma = {"type": "RandomGamma", "gamma_limit": (200, 200), "p": 1.0}
    after = StereoColour([gamma])(twins())
    wanted = (twins()["left"] / 255) ** 2 * 255
    assert np.abs(after["left"] - wanted).max() <= 1


def test_range_of_brightness():
    colour, grey = StereoColour([JITTER]), np.full((3, 4, 3), 100, np.uint8)
    with seeded([0]):
        factors = [colour({"left": grey, "right": grey})["left"].mean() / 100 for _ in range(300)]
    assert min(factors) == pytest.approx(0.5, abs=0.04)
    assert max(factors) == pytest.approx(1.5, abs=0.04)


def test_truth_is_left_alone():
    after = StereoColour([JITTER])(twins())
    np.testing.assert_array_equal(after["disparity"], twins()["disparity"])


def test_what_moves_pixels_is_refused():
    with pytest.raises(ValueError, match=r"HorizontalFlip moves pixels.*StereoRandomCrop"):
        StereoColour([{"type": "HorizontalFlip"}])
    with pytest.raises(ValueError, match="Affine moves pixels"):
        StereoColour([{"type": "OneOf", "transforms": [JITTER, {"type": "Affine"}]}])
    with pytest.raises(ValueError, match=r"made float32 \[13, 17, 3\] of a view of uint8"):
        StereoColour([{"type": "ToFloat", "p": 1.0}])(twins())
    with pytest.raises(KeyError, match="did you mean ColorJitter"):
        StereoColour([{"type": "ColourJitter"}])

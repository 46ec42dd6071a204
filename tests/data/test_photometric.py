from __future__ import annotations

import random
from itertools import product

import cv2
import numpy as np
import pytest
from mmseg.datasets.transforms import PhotoMetricDistortion

from visionattn.data.augmentation import build_augmentation
from visionattn.data.photometric import PhotometricDistortion, distort


def images():
    rng = np.random.default_rng(0)
    yield rng.integers(0, 256, (41, 57, 3), np.uint8)
    yield cv2.GaussianBlur(rng.integers(0, 256, (41, 57, 3), np.uint8), (0, 0), 3)
    yield np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)


def distorted_by_mmseg(image, brightness, contrast, contrast_first, saturation, hue, monkeypatch):
    """mmseg's transform while its draws are these; it works in BGR."""
    flags, values = [], []
    for step in ("brightness", "first", "contrast", "saturation", "hue", "contrast"):
        value = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}.get(step)
        if step == "first":
            flags.append(int(contrast_first))
        elif step != "contrast" or (len(flags) == 2) == contrast_first:
            flags.append(int(value is not None))
            values += [] if value is None else [value]
    flags, values = iter(flags), iter(values)
    monkeypatch.setattr(np.random, "randint", lambda low, high=None: next(flags) if high is None else next(values))
    monkeypatch.setattr(np.random, "uniform", lambda low, high: next(values))
    result = PhotoMetricDistortion()({"img": image[..., ::-1].copy()})["img"][..., ::-1]
    assert not [*flags, *values]
    return result


@pytest.mark.parametrize("contrast_first", [False, True])
def test_same_draws_give_mmseg_s_pixels(contrast_first, monkeypatch):
    rng = np.random.default_rng(1)
    for steps in product([False, True], repeat=4):
        drawn = [rng.uniform(-32, 32), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5), int(rng.integers(-18, 18))]
        brightness, contrast, saturation, hue = (
            value if step else None for value, step in zip(drawn, steps, strict=True)
        )
        for image in images():
            before = image.copy()
            ours = distort(image, brightness, contrast, contrast_first, saturation, hue)
            theirs = distorted_by_mmseg(image, brightness, contrast, contrast_first, saturation, hue, monkeypatch)
            np.testing.assert_array_equal(ours, theirs)
            np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(("brightness", "contrast"), [(32, 1.5), (-32, 0.5), (0.0, 1.0), (-0.4, 1.499)])
@pytest.mark.parametrize("hue", [-18, 17, 0])
def test_ends_of_the_ranges(brightness, contrast, hue, monkeypatch):
    image = next(images())
    for first in (False, True):
        drawn = (brightness, contrast, first, contrast, hue)
        np.testing.assert_array_equal(distort(image, *drawn), distorted_by_mmseg(image, *drawn, monkeypatch))


def test_draws_have_mmseg_s_ranges_and_each_step_every_second_time():
    transform = PhotometricDistortion()
    transform.set_random_state(np.random.default_rng(0), random.Random(0))
    drawn = [transform.get_params() for _ in range(4000)]
    for name, low, high in (("brightness", -32, 32), ("contrast", 0.5, 1.5), ("saturation", 0.5, 1.5)):
        values = np.array([params[name] for params in drawn if params[name] is not None])
        assert abs(len(values) - 2000) < 130  # four standard deviations
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
    hues = [params["hue"] for params in drawn if params["hue"] is not None]
    assert set(hues) == set(range(-18, 18))  # mmseg draws numpy's randint(-18, 18)
    assert abs(len(hues) - 2000) < 130
    assert abs(sum(params["contrast_first"] for params in drawn) - 2000) < 130


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast_range": (1.5, 0.5)}, r"contrast_range=\(1\.5, 0\.5\) must be \(smallest, largest\)"),
        ({"hue_delta": 0}, "hue_delta=0 must be from 1 to 90"),
        ({"brightness_delta": -1}, "brightness_delta=-1 must not be below 0"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation([{"type": "PhotometricDistortion", **options}], fill_mask=255)

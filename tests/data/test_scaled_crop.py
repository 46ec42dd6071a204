from __future__ import annotations

import random

import numpy as np
import pytest
from mmseg.datasets.transforms import RandomCrop, Resize

from visionattn.data.augmentation import build_augmentation
from visionattn.data.scaled_crop import ScaledCrop


def pair(height, width, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (height // 9 + 1, width // 9 + 1)).repeat(9, 0).repeat(9, 1)[:height, :width]
    return rng.integers(0, 256, (height, width, 3), np.uint8), labels.astype(np.uint8)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (33, 101), (20, 110)])
def test_same_draws_cut_the_same_piece_as_mmseg(size):
    """Both transforms of mmseg, given the ratio and the window that ours drew."""
    image, labels = pair(*size)
    crop = ScaledCrop(scale=(200, 60), crop_size=(50, 60), cat_max_ratio=0.5)
    ratios, shapes = [], set()
    for seed in range(60):
        crop.set_random_state(np.random.default_rng(seed), random.Random(seed))
        changed = crop(image=image, mask=labels)
        ratios.append(ratio := random.Random(seed).uniform(0.5, 2.0))
        resized = Resize(scale=(int(200 * ratio), int(60 * ratio)), keep_ratio=True)(
            {"img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"]}
        )
        top, left, bottom, right = crop.params["window"]
        assert (bottom, right) == (min(top + 50, resized["img"].shape[0]), min(left + 60, resized["img"].shape[1]))
        cut = (top, top + 50, left, left + 60)
        np.testing.assert_array_equal(changed["mask"], RandomCrop((50, 60)).crop(resized["gt_seg_map"], cut))
        error = np.abs(changed["image"].astype(int) - RandomCrop((50, 60)).crop(resized["img"], cut))
        assert error.max() <= 3  # of noise, where neighbours differ by up to 255
        shapes.add(changed["image"].shape[:2])
    assert len(shapes) > 10  # smaller than the crop where the image is
    assert (50, 60) in shapes


def test_fixed_scale():
    image, labels = pair(30, 40)
    crop = build_augmentation(
        [{"type": "ScaledCrop", "scale": (80, 60), "crop_size": (100, 100), "ratio_range": (1.0, 1.0)}], fill_mask=255
    )
    changed = crop(image=image, mask=labels)
    assert changed["image"].shape == (60, 80, 3)
    assert crop(image=image)["image"].shape == (60, 80, 3)


def test_nests_by_name():
    inner = {"type": "ScaledCrop", "scale": (80, 60), "crop_size": (20, 30)}
    crop = build_augmentation(
        [{"type": "OneOf", "transforms": [inner, {"type": "CategoryCrop", "crop_size": (20, 30)}], "p": 1.0}],
        fill_mask=255,
    )
    image, labels = pair(60, 80)
    changed = crop(image=image, mask=labels)
    assert changed["image"].shape == (20, 30, 3)
    assert changed["mask"].shape == (20, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (512,)}, r"ScaledCrop refuses its options: scale=\(512,\) must be the longest long and short side"),
        ({"ratio_range": (2.0, 0.5)}, r"ratio_range=\(2\.0, 0\.5\) must be \(smallest, largest\)"),
        ({"cat_max_ratio": 0}, "cat_max_ratio=0 must be above 0"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation(
            [{"type": "ScaledCrop", "scale": (2048, 512), "crop_size": (512, 512), **options}], fill_mask=255
        )


def test_unknown_option_and_near_name():
    with pytest.raises(TypeError, match="ScaledCrop has no option 'crop'; it has scale, crop_size, ratio_range"):
        build_augmentation([{"type": "ScaledCrop", "scale": (8, 8), "crop": (8, 8)}], fill_mask=255)
    with pytest.raises(KeyError, match="no transform 'ScaleCrop'; did you mean ScaledCrop"):
        build_augmentation([{"type": "ScaleCrop"}], fill_mask=255)

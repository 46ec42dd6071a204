from __future__ import annotations

import random

import cv2
import numpy as np
import pytest

from visionattn.data.augmentation import build_augmentation
from visionattn.data.fitted_resize import FittedResize
from visionattn.data.large_scale_jitter import LargeScaleJitter
from visionattn.data.quiet_albumentations import albumentations as alb
from visionattn.data.resized_window import fitted_size


def jittered(seed, height=60, width=90, **options):
    """What comes out, and what was drawn, of a smooth image with a mask and a box in pixels."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2, y * 3, x + y], axis=-1).astype(np.uint8)
    mask = ((x >= 20) & (x < 50) & (y >= 10) & (y < 40)).astype(np.uint8)
    jitter = LargeScaleJitter(**options)
    compose = alb.Compose([jitter], bbox_params=alb.BboxParams("pascal_voc", label_fields=["number"]))
    compose.set_random_state(np.random.default_rng(seed), random.Random(seed))
    after = compose(image=image, masks=mask[None], bboxes=np.array([[20, 10, 50, 40]], np.float32), number=[0])
    return image, mask, after, jitter.params


@pytest.mark.parametrize("size", [48, 100])
def test_same_draws_by_resizing_all_of_it(size):
    """The whole image resized by OpenCV, cut by slices and padded by numpy."""
    shapes = set()
    for seed in range(25):
        image, mask, after, drawn = jittered(seed, size=size, ratio_range=(0.3, 2.0), fill=(1, 2, 3))
        height, width = drawn["resized"]
        top, left, bottom, right = drawn["window"]
        assert (bottom - top, right - left) == (min(height, size), min(width, size))
        whole = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)[top:bottom, left:right]
        wanted = np.empty((size, size, 3), int)
        wanted[:] = 1, 2, 3
        wanted[: bottom - top, : right - left] = whole
        assert np.abs(after["image"].astype(int) - wanted).max() <= 3
        scaled = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)[top:bottom, left:right]
        assert (after["masks"][0][: bottom - top, : right - left] != scaled).mean() < 0.02
        assert not after["masks"][0][bottom - top :].any()
        x, y = width / 90, height / 60
        box = np.array([20 * x - left, 10 * y - top, 50 * x - left, 40 * y - top]).clip(0, size)
        if len(after["bboxes"]):
            np.testing.assert_allclose(after["bboxes"][0], box, atol=1e-3)
        else:
            assert min(box[2] - box[0], box[3] - box[1]) <= 1e-3
        shapes.add((height, width))
    assert len(shapes) > 15


def test_range_of_the_ratio():
    ratios = [jittered(seed, size=128, ratio_range=(0.1, 2.0))[3]["resized"][1] / 128 for seed in range(200)]
    assert min(ratios) == pytest.approx(0.1, abs=0.03)
    assert max(ratios) == pytest.approx(2.0, abs=0.03)
    assert np.median(ratios) == pytest.approx(1.05, abs=0.2)


def test_one_of_the_scales():
    resize = FittedResize(scales=[(200, 60), (200, 90), (100, 90)])
    sizes = set()
    for seed in range(40):
        resize.set_random_state(np.random.default_rng(seed), random.Random(seed))
        sizes.add(resize(image=np.zeros((60, 90, 3), np.uint8))["image"].shape[:2])
    assert sizes == {(60, 90), (90, 135), (67, 100)}
    assert fitted_size((480, 640), (1333, 800)) == (800, 1067)  # COCO's usual image at its usual size


def test_boxes_stay_shares_of_a_resized_image():
    compose = alb.Compose(
        [FittedResize([(200, 77)])], bbox_params=alb.BboxParams("pascal_voc", label_fields=["number"])
    )
    after = compose(image=np.zeros((60, 91, 3), np.uint8), bboxes=np.array([[9.1, 6, 45.5, 60]]), number=[0])
    assert after["image"].shape == (77, 117, 3)
    np.testing.assert_allclose(after["bboxes"][0], [11.7, 7.7, 58.5, 77], atol=1e-4)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "LargeScaleJitter", "size": 0}, "LargeScaleJitter refuses its options: size=0 must be the square's"),
        ({"type": "LargeScaleJitter", "ratio_range": (2.0, 0.1)}, r"ratio_range=\(2\.0, 0\.1\) must be"),
        ({"type": "FittedResize", "scales": (1333, 800)}, r"scales=\(1333, 800\) must be pairs"),
        ({"type": "FittedResize", "scales": []}, r"scales=\[\] must be pairs"),
    ],
)
def test_wrong_options_are_one_line(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_augmentation([cfg], fill_mask=0)

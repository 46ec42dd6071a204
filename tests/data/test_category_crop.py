from __future__ import annotations

import random

import numpy as np
import pytest
from mmseg.datasets.transforms import RandomCrop

from visionattn.data.augmentation import build_augmentation
from visionattn.data.category_crop import draw_window, is_varied


def naive_is_varied(labels, cat_max_ratio, ignore):
    """As mmseg writes it."""
    numbers, counts = np.unique(labels, return_counts=True)
    counts = counts[numbers != ignore]
    return len(counts) > 1 and np.max(counts) / np.sum(counts) < cat_max_ratio


def label_maps():
    rng = np.random.default_rng(0)
    yield np.full((32, 32), 255, np.uint8)
    yield np.full((32, 32), 3, np.uint8)
    yield (np.arange(1024) % 7).reshape(32, 32).astype(np.uint8)
    for ratio in (0.25, 0.5, 0.75):  # exactly the share that is too much
        labels = np.arange(1024) % 7 + 1
        labels[: int(1024 * ratio)] = 0
        yield labels.reshape(32, 32).astype(np.uint8)
        yield np.where(np.arange(1024) < 1024 * ratio, 0, 9).reshape(32, 32).astype(np.uint8)
    for _ in range(400):
        blocks = rng.choice([0, 1, 2, 40, 254, 255], rng.integers(1, 6, 2), p=rng.dirichlet(np.full(6, 0.4)))
        labels = blocks.astype(np.uint8).repeat(rng.integers(1, 30), 0).repeat(rng.integers(1, 30), 1)
        labels[rng.random(labels.shape) < rng.choice([0, 0.01, 0.3])] = rng.choice([0, 7, 255])
        yield labels


@pytest.mark.parametrize("cat_max_ratio", [0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize("ignore", [255, 0])
def test_rule_is_mmseg_s(cat_max_ratio, ignore):
    answers = [
        (is_varied(labels, cat_max_ratio, ignore), naive_is_varied(labels, cat_max_ratio, ignore))
        for labels in label_maps()
    ]
    assert [ours for ours, _ in answers] == [bool(theirs) for _, theirs in answers]
    assert {ours for ours, _ in answers} == {False, True}


class Scripted(random.Random):
    """Draws of one list, each a fraction of what there is to choose from; so does `numpy_draw`, mmseg's."""

    def __init__(self, fractions):
        self.fractions = iter(fractions)
        super().__init__(0)

    def randint(self, low, high):
        return low + int(next(self.fractions) * (high + 1 - low))

    def numpy_draw(self, low, high):
        return self.randint(low, high - 1)


@pytest.mark.parametrize("crop_size", [(20, 30), (64, 30), (70, 90)])
def test_same_draws_take_the_same_window_as_mmseg(crop_size, monkeypatch):
    """Also after rejections, up to the eleventh window; also where the image is smaller than the crop."""
    rng = np.random.default_rng(1)
    windows_drawn = set()
    for cat_max_ratio in (0.3, 0.6, 1.0):
        for _ in range(60):
            labels = rng.choice([0, 1, 2, 255], (8, 8)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            fractions = rng.random(40)
            theirs, ours = Scripted(fractions), Scripted(fractions)
            monkeypatch.setattr(np.random, "randint", theirs.numpy_draw)
            crop = RandomCrop(crop_size, cat_max_ratio)
            top, bottom, left, right = crop.crop_bbox({"img": labels[..., None], "gt_seg_map": labels})
            window = draw_window(ours, labels.shape, crop_size, labels, cat_max_ratio, 255)
            assert window == (top, left, min(bottom, 64), min(right, 64))
            left_over = len(list(ours.fractions))
            assert len(list(theirs.fractions)) == left_over
            windows_drawn.add((40 - left_over) // 2)
    assert {1, 11} <= windows_drawn


def test_image_without_a_mask_is_cropped_anywhere():
    crop = build_augmentation([{"type": "CategoryCrop", "crop_size": (5, 7), "cat_max_ratio": 0.1}], fill_mask=255)
    image = np.random.default_rng(2).integers(0, 256, (9, 11, 3), np.uint8)
    tops = set()
    for seed in range(60):
        crop.set_random_state(np.random.default_rng(seed), random.Random(seed))
        found = crop(image=image)["image"]
        (place,) = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(image[top : top + 5, left : left + 7], found)
        ]
        tops.add(place)
    assert {top for top, _ in tops} == {left for _, left in tops} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": (0, 5)}, r"CategoryCrop refuses its options: crop_size=\(0, 5\) must be \(height, width\)"),
        ({"crop_size": (5, 5), "cat_max_ratio": 1.5}, r"cat_max_ratio=1\.5 must be above 0 and at most 1"),
    ],
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(ValueError, match=message) as error:
        build_augmentation([{"type": "CategoryCrop", **options}], fill_mask=255)
    assert "\n" not in str(error.value)

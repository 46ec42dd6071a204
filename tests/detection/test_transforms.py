from __future__ import annotations

import copy

import cv2
import numpy as np
import pytest
from mmengine.registry import TRANSFORMS

from visionattn.data.randomness import Draw, make_samples, seeded
from visionattn.detection.packing import PackDetection
from visionattn.detection.transforms import DetectionAugment, mask_boxes

# Every kind of change of place, made certain; the last three turn, so that their boxes are only around the objects.
SPATIAL = [
    {"type": "FittedResize", "scales": [(150, 97), (61, 60)]},
    {"type": "LargeScaleJitter", "size": 64, "ratio_range": (0.6, 2.0)},
    {"type": "HorizontalFlip", "p": 1.0},
    {"type": "VerticalFlip", "p": 1.0},
    {"type": "RandomCrop", "height": 45, "width": 60},
    {"type": "AtLeastOneBBoxRandomCrop", "height": 45, "width": 60},
    {"type": "BBoxSafeRandomCrop", "p": 1.0},
    {"type": "PadIfNeeded", "min_height": 128, "min_width": 130, "p": 1.0},
    {"type": "Rotate", "limit": (20, 30), "p": 1.0},
    {"type": "Affine", "shear": (-20, 20), "scale": (0.7, 1.4), "p": 1.0},
    {"type": "Perspective", "scale": (0.05, 0.1), "p": 1.0},
]
TURNS = {"Rotate", "Affine", "Perspective"}
COLOUR = {"type": "PhotometricDistortion", "brightness_delta": 60}


def sample(objects=6, seed=0):
    """An image of 80x100 in which object k is a flat ellipse of colour 30 + 30 * k; a third of them crowds."""
    rng = np.random.default_rng(seed)
    image, masks = np.zeros((80, 100, 3), np.uint8), np.zeros((objects, 80, 100), np.uint8)
    for number in range(objects):
        centre = 17 + 33 * (number % 3) + int(rng.integers(-3, 4)), 20 + 40 * (number // 3)
        cv2.ellipse(masks[number], centre, (int(rng.integers(6, 13)), int(rng.integers(6, 15))), 0, 0, 360, 1, -1)
        image[masks[number] > 0] = 30 + 30 * number
    return {
        "image": image,
        "boxes": mask_boxes(masks),
        "labels": np.arange(objects) + 40,
        "crowd": np.arange(objects) % 3 == 2,
        "masks": masks,
        "image_id": 5,
        "file": "a.jpg",
        "ori_shape": (80, 100),
        "scale": (1.0, 1.0),
    }


@pytest.mark.parametrize("cfg", SPATIAL, ids=lambda cfg: cfg["type"])
def test_boxes_masks_labels_and_pixels_move_together(cfg):
    augment, objects = DetectionAugment([cfg]), 0
    for seed in range(12):
        with seeded([seed]):
            after = augment(sample(seed=seed))
        height, width = after["image"].shape[:2]
        assert after["masks"].shape == (len(after["boxes"]), height, width)
        assert len(after["labels"]) == len(after["crowd"]) == len(after["boxes"])
        np.testing.assert_array_equal(after["crowd"], (after["labels"] - 40) % 3 == 2)
        assert (after["boxes"][:, :2] >= 0).all()
        assert (after["boxes"][:, 2:] <= (width, height)).all()
        for label, mask in zip(after["labels"], after["masks"], strict=True):
            inner = cv2.erode(mask, np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
            # The label says the colour; OpenCV's interpolation rounds.
            assert np.abs(after["image"][inner].astype(int) - (30 + 30 * (label - 40))).max(initial=0) <= 2
        around = mask_boxes(after["masks"])
        outside = np.concatenate([after["boxes"][:, :2] - around[:, :2], around[:, 2:] - after["boxes"][:, 2:]], axis=1)
        assert outside.max(initial=0) <= 2.01  # the mask is in its box
        if cfg["type"] not in TURNS:  # and fills it, but where its widest part was cut off
            whole = ((after["boxes"] > 1) & (after["boxes"] < (width - 1, height - 1) * 2)).all(axis=1)
            assert np.abs(outside[whole]).max(initial=0) <= 2.01
        objects += len(after["boxes"])
    assert objects > 24


def test_values_that_came_in_stay():
    before = sample()
    kept = copy.deepcopy(before)
    with seeded([0]):
        after = DetectionAugment([SPATIAL[1], COLOUR])(before)
    for key, value in kept.items():
        np.testing.assert_array_equal(before[key], value)
    assert (after["boxes"].dtype, after["labels"].dtype, after["crowd"].dtype) == (np.float32, np.int64, np.bool_)
    assert (after["file"], after["image_id"], after["ori_shape"]) == ("a.jpg", 5, (80, 100))
    assert "scale" not in after


def test_flip_by_hand():
    after = DetectionAugment([{"type": "HorizontalFlip", "p": 1.0}])(sample())
    left, top, right, bottom = sample()["boxes"].T
    np.testing.assert_allclose(after["boxes"], np.stack([100 - right, top, 100 - left, bottom], 1), atol=1e-4)
    np.testing.assert_array_equal(after["masks"], sample()["masks"][..., ::-1])


def test_crop_that_keeps_objects():
    augment = DetectionAugment([{"type": "AtLeastOneBBoxRandomCrop", "height": 30, "width": 30, "erosion_factor": 0.0}])
    with seeded([0]):
        numbers = [len(augment(sample())["boxes"]) for _ in range(40)]
    assert min(numbers) >= 1
    assert max(numbers) >= 2


def test_object_with_too_little_left_of_it():
    """A box of 20 pixels of which a crop leaves 6."""
    crop = {"type": "Crop", "x_min": 14, "y_min": 0, "x_max": 60, "y_max": 60, "p": 1.0}
    given = {"image": np.zeros((60, 60, 3), np.uint8), "boxes": np.array([[0, 0, 20, 20]], np.float32)}
    given |= {"labels": np.array([3]), "crowd": np.array([False])}
    assert DetectionAugment([crop], min_visibility=0.31)(given)["labels"].tolist() == []
    after = DetectionAugment([crop], min_visibility=0.29)(given)
    np.testing.assert_allclose(after["boxes"], [[0, 0, 6, 20]], atol=1e-4)
    assert DetectionAugment([crop], min_side=7)(given)["boxes"].shape == (0, 4)


def test_object_whose_mask_is_gone_leaves():
    given = sample(1)
    given["masks"][:] = 0
    given["masks"][0, 20, :50] = 1  # the mask is left of the crop, the box reaches into it
    given["boxes"] = np.array([[0, 0, 100, 80]], np.float32)
    crop = {"type": "Crop", "x_min": 60, "y_min": 0, "x_max": 100, "y_max": 80, "p": 1.0}
    assert len(DetectionAugment([crop])(given)["boxes"]) == 0


def test_boxes_anew_from_masks():
    turn = {"type": "Rotate", "limit": (45, 45), "p": 1.0}
    given = sample()
    loose, close = (DetectionAugment([turn], boxes_from_masks=option)(given) for option in (False, True))
    single = ~close["crowd"]
    np.testing.assert_array_equal(close["boxes"][single], mask_boxes(close["masks"])[single])
    np.testing.assert_array_equal(close["boxes"][~single], loose["boxes"][~single])
    area = [np.prod(boxes[single, 2:] - boxes[single, :2], axis=1).sum() for boxes in (close["boxes"], loose["boxes"])]
    assert area[0] < 0.75 * area[1]


@pytest.mark.parametrize("cfg", [*SPATIAL, COLOUR], ids=lambda cfg: cfg["type"])
def test_image_without_objects(cfg):
    """An empty image stays one, whether its objects are none or not known."""
    full = sample()
    for given in (
        full | {key: full[key][:0] for key in ("boxes", "labels", "crowd", "masks")},
        {key: full[key] for key in ("image", "file")},
    ):
        with seeded([2]):
            after = DetectionAugment([cfg])(given)
        packed = PackDetection()(after)
        if "boxes" in given:
            assert packed["data_samples"].boxes.shape == (0, 4)
            assert packed["data_samples"].masks.shape == (0, *after["image"].shape[:2])
        else:
            assert "boxes" not in packed["data_samples"]


def test_draw_says_everything():
    class Samples:
        def __init__(self):
            self.augment = DetectionAugment([SPATIAL[1], {"type": "HorizontalFlip", "p": 0.5}, COLOUR])

        def __getitem__(self, index):
            return self.augment(sample())

    draws = [Draw(0, (1, number)) for number in range(6)]
    first, again = make_samples(Samples(), draws), make_samples(Samples(), draws[::-1])[::-1]
    for one, other in zip(first, again, strict=True):
        for key in ("image", "boxes", "masks", "labels"):
            np.testing.assert_array_equal(one[key], other[key])
    assert len({one["image"].tobytes() for one in first}) == 6


def test_wrong_use_is_said():
    with pytest.raises(ValueError, match=r"min_visibility=2 must be from 0 to 1"):
        DetectionAugment([], min_visibility=2)
    with pytest.raises(KeyError, match="did you mean"):
        TRANSFORMS.build({"type": "visionattn.DetectionAugment", "transforms": [{"type": "LargeScaleJiter"}]})
    with pytest.raises(ValueError, match=r"made an image of float32 \[80, 100, 3\]; expected uint8"):
        DetectionAugment([{"type": "ToFloat", "p": 1.0}])(sample())

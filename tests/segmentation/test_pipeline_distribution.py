"""Our training pipeline and mmseg's published one draw from one distribution: two-sample tests of what comes out.

Seeds are fixed, so that each test has one answer. That the same draws give the same pixels is shown for each transform
in tests/data/.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from scipy.stats import ks_2samp

PUBLISHED = Path(find_spec("mmseg").submodule_search_locations[0]) / ".mim/configs/_base_/datasets"
OURS = Path(__file__).parents[2] / "configs/_base_/datasets"
SAMPLES = 1000  # the test sees distributions that differ by 0.09 somewhere: a flip of 0.4, a ratio of up to 1.8
SMALLER = 8  # everything by this factor: the samples stay a millisecond's work


def our_steps(config):
    (step,) = [step for step in Config.fromfile(OURS / f"{config}.py").train_pipeline if "transforms" in step]
    crop, *others = step.transforms
    crop.scale = tuple(side // SMALLER for side in crop.scale)
    crop.crop_size = tuple(side // SMALLER for side in crop.crop_size)
    return crop, others


def their_steps(config):
    steps = Config.fromfile(PUBLISHED / f"{config}.py").train_pipeline
    for step in steps:
        for key in ("scale", "crop_size"):
            if key in step:
                step[key] = tuple(side // SMALLER for side in step[key])
    return [step for step in steps if step.type in ("RandomResize", "RandomCrop", "RandomFlip")]


def place_sample(size):
    """Red grows from left to right and green from top to bottom; one class has most of the picture."""
    height, width = size
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    labels = np.zeros(size, np.uint8)
    labels[: height // 3, : width // 4] = 1
    labels[height // 2 : height // 2 + 9, width // 2 :] = 2
    labels[-height // 8 :] = 255
    image = np.stack([red, green, np.zeros(size)], axis=2).round().astype(np.uint8)
    return {"img": image, "gt_seg_map": labels, "seg_fields": ["gt_seg_map"], "img_shape": size}


def placement(results):
    """What tells scale, place, flip and content of a crop."""
    image, labels = results["img"].astype(float), results["gt_seg_map"]
    shares = np.bincount(labels[labels != 255], minlength=3) / max((labels != 255).sum(), 1)
    red, green = image[0, :, 0], image[:, 0, 1]
    return {
        "height": image.shape[0],
        "width": image.shape[1],
        "pixels per level": abs(red[-1] - red[0]) / image.shape[1],
        "left": min(red[0], red[-1]),
        "top": green[0],
        "flipped": red[0] > red[-1],
        "largest share": shares.max(),
        "second class": shares[1],
        "ignored": (labels == 255).mean(),
    }


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("ade20k", "ade20k"),
        ("cityscapes", "cityscapes"),
        ("coco_stuff", "coco-stuff164k"),
        ("coco_stuff10k", "coco-stuff10k"),
        ("voc", "pascal_voc12_aug"),
        ("pascal_context", "pascal_context_59"),
    ],
)
def test_published_numbers(ours, theirs):
    ours = Config.fromfile(OURS / f"{ours}.py")
    theirs = Config.fromfile(PUBLISHED / f"{theirs}.py")
    (step,) = [step for step in ours.train_pipeline if "transforms" in step]
    crop, flip, distortion = step.transforms
    steps = {step.type: step for step in theirs.train_pipeline}
    assert crop.type == "ScaledCrop"
    assert crop.scale == steps["RandomResize"].scale
    assert steps["RandomResize"].keep_ratio
    assert crop.ratio_range == steps["RandomResize"].ratio_range
    assert crop.crop_size == ours.crop_size == steps["RandomCrop"].crop_size
    assert crop.cat_max_ratio == steps["RandomCrop"].cat_max_ratio
    assert flip == {"type": "HorizontalFlip", "p": steps["RandomFlip"].prob}
    assert distortion == {"type": "PhotometricDistortion"}
    assert steps["PhotoMetricDistortion"] == {"type": "PhotoMetricDistortion"}
    assert set(steps) <= {"LoadImageFromFile", "LoadAnnotations", "RandomResize", "RandomCrop", "RandomFlip",
                          "PhotoMetricDistortion", "Pad", "PackSegInputs"}  # fmt: skip
    (resize,) = [step for step in ours.test_pipeline if "scale" in step]
    (their_resize,) = [step for step in theirs.test_pipeline if step.type == "Resize"]
    assert resize == their_resize | {"type": "mmseg.Resize"}
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        assert ours[loader].batch_size == theirs[loader].batch_size


@pytest.mark.parametrize(
    ("config", "size"),
    [("ade20k", (60, 80)), ("ade20k", (85, 64)), ("cityscapes", (128, 256)), ("pascal_context", (47, 62))],
)
def test_scale_place_flip_and_content(config, size):
    crop, (flip, _) = our_steps(config)
    ours = TRANSFORMS.build({"type": "visionattn.Albumentations", "transforms": [crop, flip]})
    theirs = [TRANSFORMS.build(step) for step in their_steps(config)]
    np.random.seed(0)
    samples = {"ours": [], "theirs": []}
    for _ in range(SAMPLES):
        samples["ours"].append(placement(ours(place_sample(size))))
        results = place_sample(size)
        for step in theirs:
            results = step(results)
        samples["theirs"].append(placement(results))
    assert agreement(samples) > 1e-3


def colour_sample():
    """Grey from black to white, and squares of every hue, dull and bright."""
    hsv = np.zeros((12, 24, 3), np.uint8)
    hsv[0, :, 2] = np.linspace(0, 255, 24)
    hsv[1:, :, 0] = np.linspace(0, 179, 24)
    hsv[1:, :, 1] = np.linspace(40, 250, 11)[:, None]
    hsv[1:, :, 2] = 150
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def colours(image):
    hue, saturation, value = cv2.split(cv2.cvtColor(image[1:], cv2.COLOR_RGB2HSV))
    grey = image[0, :, 0].astype(int)
    return {
        "black": grey[0],
        "middle": grey[11],
        "white": grey[-1],
        "dull": float(saturation[2].mean()),
        "vivid": float(saturation[-1].mean()),
        "bright": float(value.mean()),
        "hue": float((int(hue[6, 11]) - 86 + 90) % 180),  # of one square; 86 undistorted
        "red": float(image[..., 0].mean()),
        "spread": float(image.std()),
    }


def test_colour_statistics():
    _, (_, distortion) = our_steps("ade20k")
    ours = TRANSFORMS.build({"type": "visionattn.Albumentations", "transforms": [distortion]})
    (step,) = [s for s in Config.fromfile(PUBLISHED / "ade20k.py").train_pipeline if s.type == "PhotoMetricDistortion"]
    theirs = TRANSFORMS.build(step)
    image = colour_sample()
    np.random.seed(1)
    samples = {
        "ours": [colours(ours({"img": image})["img"]) for _ in range(6 * SAMPLES)],
        "theirs": [colours(theirs({"img": image[..., ::-1]})["img"][..., ::-1]) for _ in range(6 * SAMPLES)],
    }
    assert agreement(samples) > 1e-3


def agreement(samples):
    """The smallest p of Kolmogorov and Smirnov's test over all that was measured; prints the table for a failure."""
    ps = {}
    for name in samples["ours"][0]:
        ours, theirs = ([sample[name] for sample in samples[whose]] for whose in ("ours", "theirs"))
        ps[name] = ks_2samp(ours, theirs).pvalue
        print(f"{name:18} ours {np.mean(ours):8.3f} theirs {np.mean(theirs):8.3f} p {ps[name]:.3f}")
    return min(ps.values())

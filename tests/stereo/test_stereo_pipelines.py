"""The recipes' transforms, from configs/_base_/stereo_pipelines, on a pair of Scene Flow's size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS
from stereo_planes import plane_pair

from visionattn.data.augmentation import build_augmentation
from visionattn.data.randomness import generators, seeded

FILES = sorted((Path(__file__).parents[2] / "configs/_base_/stereo_pipelines").glob("*.py"))
CROPS = {"psmnet": (256, 512), "gmstereo": (384, 768), "raft_stereo": (320, 720)}


@pytest.fixture(scope="module")
def frame():
    return plane_pair(540, 960, slope_x=0.02, slope_y=0.01)


def test_files_were_found():
    assert {path.stem for path in FILES} == set(CROPS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_training_gives_crops_of_one_size(path, frame):
    transforms = Compose([TRANSFORMS.build(step) for step in Config.fromfile(path).train_transforms])
    packed = []
    for seed in (0, 1, 2, 0):
        with seeded([seed]):
            packed.append(transforms(frame))
    for sample in packed:
        assert {tuple(view.shape) for view in sample["inputs"].values()} == {(3, *CROPS[path.stem])}
        truth = sample["data_samples"]
        assert truth.disparity.shape == CROPS[path.stem]
        assert truth.valid.float().mean() > 0.6
    assert torch.equal(packed[0]["inputs"]["right"], packed[3]["inputs"]["right"])
    assert not torch.equal(packed[0]["inputs"]["right"], packed[1]["inputs"]["right"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_evaluation_sees_the_whole_frame(path, frame):
    config = Config.fromfile(path)
    packed = Compose([TRANSFORMS.build(step) for step in config.test_transforms])(frame)
    np.testing.assert_array_equal(packed["inputs"]["left"], frame["left"].transpose(2, 0, 1))
    if path.stem == "psmnet":
        cut = Compose([TRANSFORMS.build(step) for step in config.gwcnet_test_transforms])(frame)
        np.testing.assert_array_equal(cut["inputs"]["left"], frame["left"][28:].transpose(2, 0, 1))


def test_gmstereo_changes_one_colour_or_all():
    """As its code does: every second time one change of five, else all, and each of them every second time."""
    path = next(path for path in FILES if path.stem == "gmstereo")
    colour = next(step for step in Config.fromfile(path).train_transforms if step["type"].endswith("StereoColour"))
    halved = {"type": "ColorJitter", "brightness": (0.5, 0.5), "contrast": 0, "saturation": 0, "hue": 0}

    def counted(cfg):
        if "transforms" in cfg:
            return {**cfg, "transforms": [counted(inner) for inner in cfg["transforms"]]}
        return halved | {"p": cfg["p"]}

    compose = build_augmentation([counted(step) for step in colour["transforms"]], fill_mask=0)
    number: Counter[int] = Counter()
    for seed in range(1000):
        compose.set_random_state(*generators(seed))
        after = compose(image=np.full((1, 1, 3), 128, np.uint8))["image"][0, 0, 0]
        number[7 - int(np.log2(after))] += 1
    # 0: 0.5 * 0.5 + 0.5 / 32; 1: 0.5 * 0.5 + 0.5 * 5 / 32; 2 and 3: 0.5 * 10 / 32 each.
    assert number[0] == pytest.approx(266, abs=50)
    assert number[1] == pytest.approx(328, abs=50)
    assert number[2] == pytest.approx(156, abs=40)
    assert number[3] == pytest.approx(156, abs=40)

from __future__ import annotations

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

import visionattn.segmentation  # noqa: F401  # mmseg's names are known once this is imported
from visionattn.data.ade20k_scenes import write_ade20k


@pytest.fixture(autouse=True)
def _mmseg_scope():
    with DefaultScope.overwrite_default_scope("mmseg"):
        yield


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """A small tree of made-up scenes: 8 for training, 4 for validation, 64x96."""
    return write_ade20k(tmp_path_factory.mktemp("made_up") / "ade20k", train=8, val=4, seed=0, size=(64, 96))


@pytest.fixture
def folder(tmp_path):
    """Four pairs in images/ and masks/: classes 0..2 and ignored 255, of 20x31 pixels."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for stem in "abcd":
        cv2.imwrite(str(tmp_path / "images" / f"{stem}.jpg"), rng.integers(0, 256, (20, 31, 3), np.uint8))
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (20, 31))
        cv2.imwrite(str(tmp_path / "masks" / f"{stem}.png"), mask)
    return tmp_path

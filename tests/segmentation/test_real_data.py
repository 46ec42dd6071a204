"""CamVid's own files, where they lie: $VISIONATTN_DATA, or ../shared/data beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from visionattn.engine.config import load_config
from visionattn.segmentation.labels import read_mask, to_labels
from visionattn.segmentation.public_datasets import CamVid

ROOT = Path(os.environ.get("VISIONATTN_DATA") or Path(__file__).parents[3] / "shared" / "data") / "camvid"
pytestmark = pytest.mark.skipif(
    not (ROOT / "train.txt").is_file(),
    reason=f"no CamVid at {ROOT}: set VISIONATTN_DATA to the folder that has camvid/",
)

COUNTS = {"train": 367, "val": 101, "test": 233}

# Pixels of the 11 classes, then void: counted once with OpenCV over the annotations.
PIXELS = {
    "train": [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967, 2503995],
    "val": [1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531, 387010, 297271],
    "test": [6870982, 9906732, 473895, 10390661, 3731857, 4530895, 406612, 476807, 1599124, 255232, 76220, 1543383],
}


@pytest.mark.parametrize("split", COUNTS)
def test_every_mask_is_valid_and_the_histogram_is_known(split):
    dataset = CamVid(str(ROOT), split)
    assert len(dataset) == COUNTS[split]
    assert str(dataset.check()) == f"checked the labels and sizes of {COUNTS[split]} of {COUNTS[split]} masks"
    histogram = np.zeros(256, np.int64)
    for _, mask in dataset.pairs():
        histogram += np.bincount(to_labels(read_mask(mask), dataset.label_table(), mask).ravel(), minlength=256)
    np.testing.assert_array_equal(histogram[[*range(11), 255]], PIXELS[split])
    assert histogram.sum() == sum(PIXELS[split]) == COUNTS[split] * 360 * 480


def test_splits_keep_the_official_order_and_share_no_image():
    stems = {split: [Path(image).stem for image, _ in CamVid(str(ROOT), split).pairs()] for split in COUNTS}
    for split, found in stems.items():
        assert found == (ROOT / f"{split}.txt").read_text().split()
    assert len({stem for found in stems.values() for stem in found}) == sum(COUNTS.values())


def test_the_config_s_pipelines_on_real_files():
    config = load_config("segmentation/upernet_r18-efficient_camvid", {"data_root": str(ROOT)})
    dataset = CamVid(str(ROOT), "train")
    info = dataset.get_data_info(3)
    evaluated = Compose(config.test_pipeline)(dict(info))
    truth = cv2.imread(info["seg_map_path"], cv2.IMREAD_UNCHANGED).astype(np.int64)
    np.testing.assert_array_equal(evaluated["data_samples"].gt_sem_seg.data[0], np.where(truth == 11, 255, truth))
    assert evaluated["inputs"].shape == (3, 360, 480)
    np.random.seed(0)
    for _ in range(5):
        augmented = Compose(config.train_pipeline)(dict(info))
        labels = augmented["data_samples"].gt_sem_seg.data
        assert augmented["inputs"].shape[1:] == labels.shape[1:] == (360, 480)
        assert augmented["inputs"].dtype == torch.uint8
        assert set(labels.unique().tolist()) <= set(np.unique(truth).tolist()) - {11} | {255}

from __future__ import annotations

import numpy as np
import pytest
import torch

from visionattn.data.coco_scenes import write_coco
from visionattn.detection.packing import DetectionSample
from visionattn.engine.browse import browse
from visionattn.engine.config import load_config
from visionattn.visualization.sample_view import sample_view


def test_objects_are_counted_and_crowds_are_not_among_them():
    sample = DetectionSample()
    sample.boxes = torch.tensor([[5.0, 5, 30, 30], [40, 5, 60, 30], [5, 40, 60, 60]])
    sample.labels, sample.crowd = torch.tensor([1, 1, 0]), torch.tensor([False, False, True])
    view = sample_view(sample, np.full((64, 64, 3), 90, np.uint8), {"classes": ("a", "b")})
    assert [title for title, _ in view.tiles] == ["input", "objects"]
    assert view.counts == {"a": 0, "b": 2}
    assert (view.ignored, view.unit, view.note) == (1, "boxes", "2 objects, 1 crowd")


def test_sample_without_truth():
    view = sample_view(DetectionSample(), np.zeros((64, 64, 3), np.uint8), {"classes": ("a",)})
    assert (len(view.tiles), view.note) == (1, "objects not known")


def test_pipeline_that_packs_nothing(tmp_path):
    tree = write_coco(tmp_path / "tree", train=1, val=1, size=(64, 64))
    config = tmp_path / "config.py"
    config.write_text(f"train_dataloader = dict(dataset=dict(type='visionattn.MadeUpCoco', data_root={str(tree)!r}))")
    with pytest.raises(ValueError, match=r"a sample of MadeUpCoco holds no inputs: .*visionattn\.PackDetection"):
        browse(load_config(str(config)))


def test_page_of_a_config(tmp_path):
    tree = write_coco(tmp_path / "tree", train=4, val=1, seed=1, size=(96, 128))
    config = tmp_path / "config.py"
    config.write_text(
        f"""
default_scope = "mmengine"
pipeline = [
    dict(type="visionattn.DetectionAugment", transforms=[dict(type="LargeScaleJitter", size=96)]),
    dict(type="visionattn.PackDetection"),
]
dataset = dict(type="visionattn.MadeUpCoco", data_root={str(tree)!r}, with_masks=True, pipeline=pipeline)
train_dataloader = dict(dataset=dataset)
"""
    )
    page = browse(load_config(str(config)), "train", 4)
    assert page.count("<img") == 8
    assert "cornflower" in page
    assert "Shares of the boxes" in page
    first = min(path.name for path in (tree / "train").iterdir())
    assert f"<b>{first}</b>" in page
    assert "cards wide" in page  # names are written in the pictures

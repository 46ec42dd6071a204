"""A detector trained and evaluated by a run, in a process of its own: what it imports is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_CONFIG = """
_base_ = [{runtime!r}]
data_root = {root!r}
model = dict(
    type="visionattn.Detector",
    backbone=dict(type="visionattn.SwinTransformer", embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)),
    neck=dict(type="visionattn.FPN", out_channels=16, extra_levels="LastLevelMaxPool"),
    head=dict(
        type="visionattn.RCNNHead", num_classes=2, rpn=dict(post_nms=(40, 40)), box=dict(width=16, min_score=0.0),
        mask=dict(convs=(8,), width=8),
    ),
)
dataset = dict(
    type="visionattn.CocoDetection", data_root=data_root, ann_file="objects.json", image_dir="images", with_masks=True,
    pipeline=[dict(type="visionattn.PackDetection")],
)
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dataset)
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(test_mode=True, **dataset),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="visionattn.CocoMetric", iou_types=("bbox", "segm"))
optim_wrapper = dict(type="visionattn.AmpOptimWrapper", optimizer=dict(type="SGD", lr=0.01))
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
work_dir = {work!r}
"""
_RUN = """
import sys
from visionattn.engine.config import load_config
from visionattn.engine.preflight import check_config
from visionattn.engine.runner import Runner
config = load_config(sys.argv[1])
check_config(config, ("train", "val"))
Runner.from_cfg(config).train()
print("FOREIGN", [name for name in sys.modules if name in ("mmseg", "mmdet", "visionattn.segmentation")])
"""


def write_objects(folder: Path, images: int = 3) -> None:
    """Images with a bright and a dark rectangle; the last one has none. Ids 4 and 9."""
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 4, "name": "bright"}, {"id": 9, "name": "dark"}],
    }
    (folder / "images").mkdir(parents=True)
    for number in range(images):
        image = rng.integers(90, 160, (64, 80, 3), dtype=np.uint8)
        content["images"].append({"id": 10 + number, "file_name": f"{number}.png", "height": 64, "width": 80})
        for kind, value, left in ((4, 250, 5), (9, 5, 45)) if number < images - 1 else ():
            top = int(rng.integers(2, 30))
            image[top : top + 25, left : left + 30] = value
            corners = [left, top, left + 30, top, left + 30, top + 25, left, top + 25]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": 10 + number,
                    "category_id": kind,
                    "bbox": [left, top, 30, 25],
                    "area": 750,
                    "iscrowd": 0,
                    "segmentation": [corners],
                }
            )
        assert cv2.imwrite(str(folder / "images" / f"{number}.png"), image)
    (folder / "objects.json").write_text(json.dumps(content))


def test_a_run_trains_and_evaluates_without_mmseg(tmp_path: Path) -> None:
    write_objects(tmp_path / "data")
    runtime = Path(__file__).parents[2] / "configs" / "_base_" / "runtime" / "detection.py"
    config = tmp_path / "tiny.py"
    config.write_text(
        _CONFIG.format(runtime=str(runtime), root=str(tmp_path / "data"), work=str(tmp_path / "work")), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(config)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "FOREIGN []" in done.stdout
    evaluation = tmp_path / "work" / "evaluation"
    report = json.loads((evaluation / "coco.json").read_text())
    assert report["images"] == 3
    assert [row["objects"] for row in report["segm"]["classes"]] == [2, 2]
    rows = json.loads((evaluation / "detections_bbox_results.json").read_text())
    assert {row["image_id"] for row in rows} <= {10, 11, 12}
    assert {row["category_id"] for row in rows} <= {4, 9}
    assert rows
    assert (tmp_path / "work" / "iter_2.pth").is_file()
    assert list((tmp_path / "work").glob("best_coco_bbox_AP*"))

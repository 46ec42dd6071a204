"""What was found, drawn beside the truth."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from visionattn.detection import DetectionSample
from visionattn.detection.pictures import detection_panel
from visionattn.engine.prediction_pictures import PredictionPicturesHook
from visionattn.visualization.objects import object_tile
from visionattn.visualization.prediction_view import prediction_view

CLASSES = ("cup", "plate")


def sample(truth: bool = True, masks: bool = True) -> DetectionSample:
    """A model's input of 60 x 90 of an image of 120 x 270: found boxes are 2 and 3 times as large."""
    made = DetectionSample(metainfo={"image_id": 3, "file": "kitchen/three.jpg", "ori_shape": (120, 270)})
    if truth:
        made.boxes, made.labels = torch.tensor([[10.0, 10, 40, 50]]), torch.tensor([1])
        made.crowd = torch.tensor([False])
    made.predicted = InstanceData(
        boxes=torch.tensor([[30.0, 20, 120, 100], [200, 0, 260, 40]]),
        labels=torch.tensor([1, 0]),
        scores=torch.tensor([0.83, 0.2]),
    )
    if masks:
        made.predicted.masks = torch.zeros(2, 120, 270, dtype=torch.uint8)
        made.predicted.masks[0, 20:100, 30:120] = 1
    return made


def test_found_objects_are_drawn_in_the_inputs_pixels() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    for masks in (True, False):
        panel = detection_panel(sample(masks=masks), image, CLASSES)
        assert contains(panel, detection_tile(image, masks))
    alone = detection_panel(sample(truth=False), image, CLASSES)
    assert alone.shape[1] < panel.shape[1] * 0.6
    assert contains(alone, detection_tile(image, masks=True))


def detection_tile(image: Any, masks: bool) -> Any:
    mask = np.zeros((1, 60, 90), np.uint8)
    mask[0, 10:50, 10:40] = 1
    found = {"masks": mask if masks else None, "scores": np.array([0.83])}
    return object_tile(image, np.array([[10, 10, 40, 50]]), np.array([1]), CLASSES, **found)


def contains(page: Any, tile: Any) -> bool:
    likeness = cv2.matchTemplate(page, tile, cv2.TM_SQDIFF)  # which rounds: the place alone is taken from it
    top, left = np.unravel_index(likeness.argmin(), likeness.shape)
    return np.array_equal(page[top : top + tile.shape[0], left : left + tile.shape[1]], tile)


def test_a_view_has_the_images_name() -> None:
    view = prediction_view(sample(), torch.zeros(3, 60, 90, dtype=torch.uint8), {"classes": CLASSES})
    assert view.name == "three"
    assert prediction_view(sample(truth=False), torch.zeros(3, 60, 90, dtype=torch.uint8), {}).picture.ndim == 3


def test_some_of_every_evaluation_are_written(tmp_path: Path) -> None:
    samples = []
    for number in range(5):
        samples.append(sample())
        samples[-1].set_metainfo({"file": f"{number}.jpg"})
    loader = SimpleNamespace(dataset=Data(), batch_size=2)
    runner = SimpleNamespace(val_dataloader=loader, work_dir=str(tmp_path), world_size=1, rank=0)
    hook = PredictionPicturesHook(number=2)
    for _ in range(2):
        hook.before_val_epoch(runner)
        for start in range(0, 5, 2):
            some = samples[start : start + 2]
            inputs = {"inputs": [torch.zeros(3, 60, 90, dtype=torch.uint8)] * len(some)}
            hook.after_val_iter(runner, start // 2, inputs, some)
        assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["0.png", "4.png"]
        (tmp_path / "pictures" / "0.png").unlink()
    with pytest.raises(ValueError, match="number=-1 of pictures"):
        PredictionPicturesHook(number=-1)


class Data:
    metainfo = {"classes": CLASSES}

    def __len__(self) -> int:
        return 5

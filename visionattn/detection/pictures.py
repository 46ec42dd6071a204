"""Pictures of what was found beside what is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from visionattn.detection.packing import DetectionSample
from visionattn.visualization.objects import object_tile
from visionattn.visualization.prediction_view import PredictionView, prediction_view
from visionattn.visualization.tiles import Pixels, nearest, page_of_tiles

SHOWN = 0.5
"""The least score of what is drawn; how many are below stands in the title."""


@prediction_view.register
def _detection_view(sample: DetectionSample, inputs: Tensor, metainfo: Mapping[str, Any]) -> PredictionView:
    classes = metainfo.get("classes") or tuple(map(str, range(1 + _largest_label(sample))))
    panel = detection_panel(sample, np.ascontiguousarray(inputs.cpu().numpy().transpose(1, 2, 0)), classes)
    return PredictionView(file_name(sample), panel)


def detection_panel(sample: DetectionSample, image: Pixels, classes: Any) -> Pixels:
    """truth | found, or found alone where the truth is not known; names and scores at the boxes, masks laid over.

    Args:
        sample: with `predicted`.
        image: [H, W, 3], RGB, the model's input; what was found is brought to its size.
        classes: names.
    """
    names = list(map(str, classes))
    tiles = []
    if "boxes" in sample:
        crowd, shapes = (_array(sample.get(key)) if key in sample else None for key in ("crowd", "masks"))
        tile = object_tile(image, _array(sample.boxes), _array(sample.labels), names, masks=shapes, crowd=crowd)
        tiles.append((f"truth ({len(sample.boxes)})", tile))
    found = sample.predicted
    sure = found.scores >= SHOWN
    height, width = image.shape[:2]
    vertical, horizontal = sample.get("ori_shape", (height, width))
    boxes = _array(found.boxes[sure]) * np.array([width / horizontal, height / vertical] * 2)
    masks = None
    if "masks" in found:
        masks = nearest(_array(found.masks[sure]).transpose(1, 2, 0), (height, width)).transpose(2, 0, 1)
    tile = object_tile(image, boxes, _array(found.labels[sure]), names, masks=masks, scores=_array(found.scores[sure]))
    less = int((~sure).sum())
    title = f"found ({int(sure.sum())}" + (f", {less} below {SHOWN:g})" if less else ")")
    return page_of_tiles([*tiles, (title, tile)])


def file_name(sample: DetectionSample) -> str:
    """What to call a file about this sample: its image's name without folder and suffix, or its id."""
    return Path(str(sample.get("file") or sample.get("image_id", "image"))).stem


def _largest_label(sample: DetectionSample) -> int:
    labels = [part.labels for part in (sample, sample.predicted) if "labels" in part]
    return max((int(some.max()) for some in labels if len(some)), default=0)


def _array(values: Tensor) -> np.ndarray[Any, Any]:
    return values.detach().cpu().numpy()

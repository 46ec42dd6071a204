"""Boxes, masks, names and scores of objects, drawn into a picture: shapes by torchvision, names where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.object_names import write_names
from visionattn.visualization.palette import complete_palette
from visionattn.visualization.tiles import Pixels, displayed_size, hatch, nearest, resized

_ALPHA = 0.45


def object_tile(
    image: Pixels,
    boxes: NDArray[Any],
    labels: NDArray[Any],
    classes: Sequence[str],
    *,
    palette: Sequence[Sequence[int]] | None = None,
    masks: NDArray[Any] | None = None,
    crowd: NDArray[np.bool_] | None = None,
    scores: NDArray[Any] | None = None,
) -> Pixels:
    """The picture, small ones enlarged, with a box and a name for each object in its class's colour; crowds hatched.

    Args:
        image: [H, W, 3], RGB, 8 bit.
        boxes: [N, 4], left, top, right, bottom in its pixels.
        labels: [N], 0 .. number of classes - 1.
        classes: names.
        palette: R, G, B of each class; classes without one get a colour of `class_palette`.
        masks: [N, H, W], not 0 in the object.
        crowd: [N]; which boxes stand for many objects.
        scores: [N], from 0 to 1, written behind the name.
    Raises:
        ValueError: numbers of boxes, labels, masks, crowd flags or scores that differ, or a label outside the classes.
    """
    given = {"boxes": boxes, "labels": labels, "masks": masks, "crowd": crowd, "scores": scores}
    counts = {name: len(values) for name, values in given.items() if values is not None}
    if len(set(counts.values())) > 1:
        raise ValueError("as many of each are needed: " + ", ".join(f"{n} {name}" for name, n in counts.items()))
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(f"labels reach from {labels.min()} to {labels.max()}, the {len(classes)} classes from 0")
    size = displayed_size(*image.shape[:2])
    picture = resized(image, size)
    if not len(boxes):
        return picture
    many = np.zeros(len(boxes), bool) if crowd is None else np.asarray(crowd, bool)
    scale = np.array([size[1] / image.shape[1], size[0] / image.shape[0]] * 2)
    shown = (np.asarray(boxes, np.float64) * scale).round().clip(0, [size[1] - 1, size[0] - 1] * 2).astype(np.int64)
    for index in np.flatnonzero(many):
        there = np.zeros(size, bool)
        left, top, right, bottom = shown[index]
        there[top : bottom + 1, left : right + 1] = True
        if masks is not None:
            there = nearest(masks[index] > 0, size)
        picture[there] = np.round(0.5 * picture[there] + 0.5 * hatch(size)[there]).astype(np.uint8)
    colours = [tuple(colour) for colour in complete_palette(palette, len(classes))[labels].tolist()]
    names = [classes[label] + (", crowd" if is_many else "") for label, is_many in zip(labels, many, strict=True)]
    if scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True)]
    if masks is not None:
        single = np.flatnonzero(~many)
        fine = nearest((np.asarray(masks)[single] > 0).transpose(1, 2, 0), size).transpose(2, 0, 1)
        picture = _with_masks(picture, fine, [colours[index] for index in single])
    return _with_boxes(picture, shown, names, colours)


def _with_masks(picture: Pixels, masks: NDArray[np.bool_], colours: list[Any]) -> Pixels:
    import torch
    from torchvision.utils import draw_segmentation_masks

    if not len(masks):
        return picture
    drawn = draw_segmentation_masks(
        torch.from_numpy(picture.transpose(2, 0, 1).copy()), torch.from_numpy(masks.copy()), _ALPHA, colours
    )
    return np.ascontiguousarray(drawn.numpy().transpose(1, 2, 0))


def _with_boxes(picture: Pixels, boxes: NDArray[np.int64], names: list[str], colours: list[Any]) -> Pixels:
    import torch
    from torchvision.utils import draw_bounding_boxes

    largest_first = np.argsort(-np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), kind="stable")
    drawn = draw_bounding_boxes(
        torch.from_numpy(picture.transpose(2, 0, 1).copy()),
        torch.from_numpy(boxes[largest_first]),
        colors=[colours[index] for index in largest_first],
        width=2,
    )
    with_boxes = np.ascontiguousarray(drawn.numpy().transpose(1, 2, 0))
    return write_names(with_boxes, boxes, names, colours)

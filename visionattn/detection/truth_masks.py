"""The truth's masks as COCO's run lengths, drawn once for all evaluations of a training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def with_run_lengths(truth: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of COCO's instances json whose polygons and lists of run lengths are compressed run lengths.

    Both tools turn every mask into these before they compare any, by the same code, and leave those alone that are;
    polygons take most of the time of an evaluation. What has no mask that can be drawn stays as it is: should it count,
    the tool says what is wrong with it.
    """
    from pycocotools import mask as codec

    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in truth["images"]}

    def drawn(annotation: Mapping[str, Any]) -> dict[str, Any]:
        shape = annotation.get("segmentation")
        height, width = sizes.get(annotation["image_id"], (None, None))
        if not shape or height is None or width is None:
            return dict(annotation)
        if isinstance(shape, Mapping) and not isinstance(shape.get("counts"), list):
            return dict(annotation)
        try:
            coded = codec.frPyObjects(shape, height, width)
        except Exception:  # pycocotools raises bare Exceptions
            return dict(annotation)
        merged = codec.merge(coded) if isinstance(coded, list) else coded
        return {**annotation, "segmentation": {"size": list(merged["size"]), "counts": merged["counts"].decode()}}

    return {**truth, "annotations": [drawn(annotation) for annotation in truth["annotations"]]}

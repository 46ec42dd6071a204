"""What LVIS's json says beyond COCO's: of which classes an image's annotations speak, and how frequent a class is.

Gupta et al., CVPR 2019: nobody looked for all of 1,203 classes in an image. `neg_category_ids` were looked for and are
not there; of `not_exhaustive_category_ids` some objects have no annotation; of classes that are neither among these nor
annotated nothing is known. `frequency` is "r" (rare: in 1 to 10 training images), "c" (common: to 100) or "f".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FREQUENCIES = ("r", "c", "f")
_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")


def federated_lack(content: Mapping[str, Any]) -> str | None:
    """What a json of COCO's form lacks to be LVIS's, in a line; None if nothing."""
    for image in content["images"]:
        for key in _LISTS:
            if not isinstance(image.get(key), Sequence):
                return f"image {image['id']} has no list of {key}"
    for category in content["categories"]:
        if category.get("frequency") not in FREQUENCIES:
            return f"category {category['id']} has the frequency {category.get('frequency')!r}, not 'r', 'c' or 'f'"
    return None


def unknown_categories(image: Mapping[str, Any], categories: Mapping[int, Any]) -> list[str]:
    """A line for each id in an image's lists that is no category's."""
    return [
        f"{key} of image {image['id']}: category id {number} is not in the file's categories"
        for key in _LISTS
        for number in image.get(key) or ()
        if number not in categories
    ]


def contradictions(image: Mapping[str, Any], annotated: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each category that an image is said not to show, and that it has annotations of."""
    there = {annotation["category_id"] for annotation in annotated}
    return [
        f"image {image['id']}: category id {number} is in neg_category_ids, and has annotations"
        for number in image.get("neg_category_ids") or ()
        if number in there
    ]

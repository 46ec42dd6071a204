"""What a detector found, as COCO's json says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
from torch import Tensor


def category_ids(meta: Mapping[str, Any], truth: Mapping[str, Any]) -> list[int]:
    """The truth's id of every label.

    Args:
        meta: of the data set: "category_ids", else "classes", by whose names they are found; without either, every
            category of the truth in its order.
        truth: COCO's json.
    Raises:
        ValueError: a class or an id that the truth does not have; the message has the nearest name.
    """
    known = {str(kind["name"]): int(kind["id"]) for kind in truth["categories"]}
    given = meta.get("category_ids")
    if given is not None:
        for number in given:
            if number not in known.values():
                raise ValueError(f"category_ids has {number}, and the truth has no such category")
        return [int(number) for number in given]
    classes = meta.get("classes")
    for name in classes or ():
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise ValueError(f"the truth has no class {name!r}; {hint}")
    return list(known.values()) if classes is None else [known[name] for name in classes]


def result_rows(results: Sequence[Mapping[str, Any]], kind: str, categories: Sequence[int]) -> list[dict[str, Any]]:
    """Results as COCO's json has them.

    Args:
        results: of each image `image_id`, and lists `labels`, `score`, and `bbox` or `segm`.
        kind: "bbox" or "segm".
        categories: id of every label.
    """
    field = "bbox" if kind == "bbox" else "segmentation"
    return [
        {"image_id": result["image_id"], "category_id": categories[label], field: where, "score": score}
        for result in results
        for label, where, score in zip(result["labels"], result[kind], result["score"], strict=True)
    ]


def run_lengths(masks: Tensor) -> list[dict[str, Any]]:
    """COCO's RLE of masks [N, H, W], as JSON can say it."""
    from pycocotools import mask as codec

    columns = np.asfortranarray(masks.detach().cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in codec.encode(columns)]

"""LVIS's figures of boxes in plain loops, one detection after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

SIZES = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}
# Rounded as the reference rounds them: a recall of 0.28 reaches the 29th of these or does not by the last bit.
OVERLAPS, RECALLS = np.linspace(0.5, 0.95, 10).tolist(), np.linspace(0, 1, 101).tolist()


def naive_lvis(truth: dict[str, Any], results: list[dict[str, Any]], most: int = 300) -> dict[str, Any]:
    """The thirteen figures, and "classes": id -> AP."""
    kept = []
    for image in truth["images"]:
        mine = [result for result in results if result["image_id"] == image["id"]]
        kept += sorted(mine, key=lambda one: -one["score"])[:most]
    figures: dict[str, Any] = {}
    for size, limits in SIZES.items():
        precisions: dict[int, list[float]] = {}
        recalls: dict[int, list[float]] = {}
        for category in truth["categories"]:
            curves = [_curve(truth, kept, category["id"], limits, overlap) for overlap in OVERLAPS]
            if curves[0] is not None:
                precisions[category["id"]] = [sum(sampled) / 101 for sampled, _ in curves]
                recalls[category["id"]] = [recall for _, recall in curves]
        figures[f"AP{size}"] = _mean(precisions)
        figures["AR300" if not size else f"AR{size}"] = _mean(recalls)
        if not size:
            figures["classes"] = {number: sum(values) / 10 for number, values in precisions.items()}
            figures["AP50"] = _mean({number: values[:1] for number, values in precisions.items()})
            figures["AP75"] = _mean({number: values[5:6] for number, values in precisions.items()})
            for group in "rcf":
                of_group = {one["id"] for one in truth["categories"] if one["frequency"] == group}
                figures[f"AP{group}"] = _mean({n: values for n, values in precisions.items() if n in of_group})
    return figures


def _curve(truth: Any, results: Any, category: int, limits: tuple[float, float], overlap: float) -> Any:
    """Precision at the 101 recalls, and the last recall; None for a class without an object of this size."""
    judged: list[tuple[float, bool]] = []  # score, whether it is an object
    number = 0
    for image in sorted(truth["images"], key=lambda one: one["id"]):
        objects = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (image["id"], category)]
        fitting = [limits[0] <= one["area"] <= limits[1] for one in objects]
        number += sum(fitting)
        if not objects and category not in image["neg_category_ids"]:
            continue  # nobody looked
        found = [r for r in results if (r["image_id"], r["category_id"]) == (image["id"], category)]
        free = set(range(len(objects)))
        for one in sorted(found, key=lambda one: -one["score"]):
            overlaps = {index: _overlap(one["bbox"], objects[index]["bbox"]) for index in free}
            reached = [index for index, value in overlaps.items() if value >= overlap]
            reached = [index for index in reached if fitting[index]] or reached
            if reached:
                best = max(reached, key=lambda index: (overlaps[index], index))
                free.remove(best)
                if fitting[best]:
                    judged.append((one["score"], True))
                continue
            area = one["bbox"][2] * one["bbox"][3]
            if limits[0] <= area <= limits[1] and category not in image["not_exhaustive_category_ids"]:
                judged.append((one["score"], False))
    if not number:
        return None
    judged.sort(key=lambda one: -one[0])
    points, right = [], 0
    for count, (_, is_object) in enumerate(judged, 1):
        right += is_object
        points.append((right / number, right / count))
    sampled = [max((p for recall, p in points if recall >= at), default=0.0) for at in RECALLS]
    return sampled, (points[-1][0] if points else 0.0)


def _overlap(one: list[float], other: list[float]) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    return shared / (one[2] * one[3] + other[2] * other[3] - shared)


def _mean(by_class: dict[int, list[float]]) -> float:
    values = [value for some in by_class.values() for value in some]
    return sum(values) / len(values) if values else -1.0

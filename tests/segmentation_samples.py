"""Samples as mmengine's evaluator gives them to a metric."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def batch(seed: int, number: int = 5, classes: int = 4, ignored: float = 0.2) -> list[dict[str, Any]]:
    """Of odd sizes that differ; about half of the pixels are right, and the share `ignored` is 255."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(number):
        shape = (1, 7 + index, 13 - index)
        truth = rng.integers(0, classes, shape)
        prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, classes, shape))
        truth = np.where(rng.random(shape) < ignored, 255, truth)
        samples.append(
            {
                "gt_sem_seg": {"data": torch.from_numpy(truth)},
                "pred_sem_seg": {"data": torch.from_numpy(prediction)},
                "seg_map_path": f"masks/{index}.png",
                "img_path": f"images/{index}.jpg",
            }
        )
    return samples

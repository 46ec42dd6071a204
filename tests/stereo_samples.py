"""Predicted stereo samples for tests, as a metric is handed them."""

from __future__ import annotations

from typing import Any

import torch


def predicted(seed: int, number: int = 5, known: bool = True) -> list[dict[str, Any]]:
    """Samples of 6 x 9 pixels: errors of a few pixels, unknown pixels, disparities beyond 192 and 400; some samples
    know what is non-occluded, some what is foreground; with `known` False the third has no valid pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(number):
        truth = 230 * torch.rand(6, 9, generator=generator)
        truth[0, :2] = 450.0
        valid = torch.rand(6, 9, generator=generator) > 0.2
        if index == 2 and not known:
            valid[:] = False
        truth = torch.where(valid, truth, 0)
        sample = {
            "name": f"A/{index:04d}",
            "disparity": truth,
            "valid": valid,
            "predicted": truth + 4 * torch.randn(6, 9, generator=generator),
        }
        if index % 2 == 0:
            sample["nonoccluded"] = torch.rand(6, 9, generator=generator) > 0.3
        if index % 3 == 0:
            sample["foreground"] = torch.rand(6, 9, generator=generator) > 0.5
        samples.append(sample)
    return samples

"""What one disparity for all pixels would have scored, printed at the end of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from torch import Tensor

from visionattn.registry import HOOKS
from visionattn.stereo.errors import error_sums
from visionattn.stereo.metric import DisparityMetric
from visionattn.stereo.protocols import Protocol

_PRECISION = 1e-3  # pixels


@HOOKS.register_module()
class ConstantBaselineHook(Hook):
    """Ends a training with the EPE of the best constant disparity, found on the very pairs that validate.

    By the protocol of the first DisparityMetric, whose last EPE stands below.

    Args:
        pairs: how many are looked at, at most, evenly spaced.
    """

    priority = "VERY_LOW"  # the two lines are the last of the run

    def __init__(self, pairs: int = 300) -> None:
        if pairs < 1:
            raise ValueError(f"pairs={pairs} must be 1 or more")
        self.pairs = pairs
        self._metrics: dict[str, float] = {}

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._metrics = metrics or {}

    @master_only
    def after_train(self, runner: Any) -> None:
        metric = next((m for m in runner.val_evaluator.metrics if isinstance(m, DisparityMetric)), None)
        if metric is None:
            raise TypeError(
                "ConstantBaselineHook goes by the protocol of a DisparityMetric, and val_evaluator has none"
            )
        dataset = runner.val_dataloader.dataset
        spread = np.linspace(0, len(dataset) - 1, min(self.pairs, len(dataset))).round().astype(int)
        samples = [dataset[int(index)]["data_samples"] for index in spread]
        truths = [(sample.disparity, sample.valid) for sample in samples]
        disparity, error = best_constant(truths, metric.protocol)
        name = metric.protocol.name
        lines = [f"best constant disparity EPE {error:.4f}  ({disparity:.2f} pixels, protocol {name})"]
        reached = self._metrics.get(f"{metric.prefix}/EPE" if metric.prefix else "EPE")
        if reached is not None:
            lines.append(f"EPE {reached:.4f}  (protocol {name})")
        runner.logger.info("\n".join(lines))


def best_constant(truths: list[tuple[Tensor, Tensor]], protocol: Protocol) -> tuple[float, float]:
    """The disparity that has the smallest EPE if it stands at every pixel, and that EPE.

    Args:
        truths: disparity [H, W] and where it is valid, of each pair.
    """

    def error(constant: float) -> float:
        rows = [
            error_sums(torch.full_like(truth, constant), truth, protocol.counted(truth, valid), valid)
            for truth, valid in truths
        ]
        return protocol.reduce(torch.stack(rows))["EPE"]

    highest = max((float(truth[valid].max()) for truth, valid in truths if valid.any()), default=0.0)
    best = _lowest(error, 0.0, highest)
    return best, error(best)


def _lowest(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function is smallest: an EPE is a sum of |constant - truth| with weights."""
    while high - low > _PRECISION:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if function(left) < function(right):
            high = right
        else:
            low = left
    return (low + high) / 2

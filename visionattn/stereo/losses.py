"""Losses over all disparities that a network gives in training, the last one being the best.

A batch in which no pixel has a truth costs 0 and has a gradient of zeros, as distributed training needs.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32
from visionattn.registry import MODELS


class DisparityLoss(nn.Module):
    """A weighted sum over the outputs, each the mean over the pixels that count; in float32 at least.

    Args:
        max_disparity: truths from here on do not count; None counts all that are known.
    """

    pointwise: Callable[..., Tensor]
    """The loss of each pixel, as `F.l1_loss` takes its arguments."""

    def __init__(self, max_disparity: float | None = None) -> None:
        super().__init__()
        if max_disparity is not None and not max_disparity > 0:
            raise ValueError(f"max_disparity={max_disparity} must be positive, or None")
        self.max_disparity = math.inf if max_disparity is None else max_disparity

    def forward(self, disparities: Sequence[Tensor], truth: Tensor, valid: Tensor) -> Tensor:
        """The loss, one number.

        Args:
            disparities: [B, H, W] each, pixels, the last one the best.
            truth: [B, H, W], pixels; anything where it is not valid.
            valid: bool [B, H, W].
        Raises:
            ValueError: shapes differ; no output, or another number of them than there are weights.
        """
        if not disparities:
            raise ValueError("the network gave no disparity")
        for disparity in disparities:
            if not disparity.shape == truth.shape == valid.shape:
                shapes = (list(t.shape) for t in (disparity, truth, valid))
                raise ValueError("disparity, truth and valid differ in shape: {}, {}, {}".format(*shapes))
        weights = self.weights(len(disparities))
        counted = valid & (truth < self.max_disparity)
        number = counted.sum().clamp(min=1)
        wanted = torch.where(counted, truth, 0)  # NaN there would reach the gradient
        total = torch.zeros((), device=truth.device)
        for weight, disparity in zip(weights, disparities, strict=True):
            errors = self.pointwise(at_least_float32(disparity), wanted.to(disparity.device), reduction="none")
            total = total + weight * torch.where(counted, errors, 0).sum() / number
        return total

    @abstractmethod
    def weights(self, outputs: int) -> list[float]:
        """The factor of each output."""


@MODELS.register_module()
class WeightedSmoothL1Loss(DisparityLoss):
    """Smooth L1 of each output with a weight of its own: PSMNet (0.5, 0.7, 1), GwcNet (0.5, 0.5, 0.7, 1).

    Args:
        weights: one for each output.
        max_disparity: as of `DisparityLoss`.
    """

    pointwise = staticmethod(F.smooth_l1_loss)

    def __init__(self, weights: Sequence[float] = (1.0,), max_disparity: float | None = None) -> None:
        super().__init__(max_disparity)
        self._weights = list(weights)

    def weights(self, outputs: int) -> list[float]:
        if outputs != len(self._weights):
            raise ValueError(
                f"the network gives {outputs} disparities, the loss has {len(self._weights)} weights "
                f"{tuple(self._weights)}; give one for each"
            )
        return self._weights


@MODELS.register_module()
class SequenceSmoothL1Loss(DisparityLoss):
    """Smooth L1 of each output, gamma less for each step before the last: GMStereo.

    Args:
        gamma: 0 to 1.
        max_disparity: as of `DisparityLoss`.
    """

    pointwise = staticmethod(F.smooth_l1_loss)

    def __init__(self, gamma: float = 0.9, max_disparity: float | None = None) -> None:
        super().__init__(max_disparity)
        self.gamma = _checked(gamma)

    def weights(self, outputs: int) -> list[float]:
        return _falling(self.gamma, outputs)


@MODELS.register_module()
class SequenceL1Loss(DisparityLoss):
    """L1 of each output with falling weights for the early ones: RAFT-Stereo.

    The factor from one output to the one before is gamma ** (15 / (outputs - 1)): the first of any number weighs what
    the first of sixteen does with gamma itself.

    Args:
        gamma: 0 to 1.
        max_disparity: as of `DisparityLoss`; RAFT-Stereo's is 700.
    """

    pointwise = staticmethod(F.l1_loss)

    def __init__(self, gamma: float = 0.9, max_disparity: float | None = None) -> None:
        super().__init__(max_disparity)
        self.gamma = _checked(gamma)

    def weights(self, outputs: int) -> list[float]:
        return _falling(self.gamma ** (15 / max(outputs - 1, 1)), outputs)


def _falling(gamma: float, outputs: int) -> list[float]:
    return [gamma ** (outputs - 1 - index) for index in range(outputs)]


def _checked(gamma: float) -> float:
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma={gamma} must be above 0 and 1 at most")
    return gamma

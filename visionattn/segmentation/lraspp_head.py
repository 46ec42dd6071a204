"""mmseg's Lite R-ASPP head on maps of any size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmseg.models import LRASPPHead as MMSegLRASPPHead
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.registry import MODELS


class FittedAvgPool2d(nn.AvgPool2d):
    """Average pooling whose window shrinks to the map where the map is smaller."""

    def forward(self, x: Tensor) -> Tensor:
        window = [min(side, extent) for side, extent in zip(_pair(self.kernel_size), x.shape[-2:], strict=True)]
        return F.avg_pool2d(x, window, self.stride)


def LRASPPHead(head: Mapping[str, Any]) -> MMSegLRASPPHead:
    """mmseg's LRASPPHead, also where the last map is smaller than its window of 49 x 49, at which mmseg's fails.

    `dict(type="visionattn.LRASPPHead", head=dict(type="mmseg.LRASPPHead", ...))`; the head itself, not a wrapper. The
    window is meant for maps of 1/16 of 1024 x 2048; a crop of 512 x 512 has 32 x 32 there, and is pooled as a whole.

    Args:
        head: config of the head.
    Raises:
        TypeError: it is another head.
    """
    built = MODELS.build(dict(head))
    if not isinstance(built, MMSegLRASPPHead):
        raise TypeError(f"LRASPPHead fits the window of mmseg.LRASPPHead, got {type(built).__name__}")
    pool = built.image_pool[0]
    built.image_pool[0] = FittedAvgPool2d(pool.kernel_size, pool.stride)
    return built


MODELS.register_module(module=LRASPPHead)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value

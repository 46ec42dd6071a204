"""Inference by windows that slide over an image of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_KEYS = ("crop_size", "stride", "window_batch", "edge_weight")


@dataclass(frozen=True)
class SlidingWindow:
    """Where windows lie, how many run at a time, and how their predictions blend.

    Windows begin every `stride` pixels; the last ones are moved back so that they end at the border, as in mmseg. Where
    windows overlap, their predictions are averaged. An image smaller than the window is padded with zeros (the mean
    colour, after normalisation) at the right and at the bottom, and the prediction is cut back.

    Args:
        size: height and width of a window.
        stride: vertical and horizontal step, at most the size.
        batch: windows that run through the network together.
        edge_weight: weight of a window's edge against that of its centre, 1, rising linearly in between; 1 is mmseg's
            plain average, less trusts predictions more that see what is around them.
    Raises:
        ValueError: a number that makes no sense.
    """

    size: tuple[int, int]
    stride: tuple[int, int]
    batch: int = 4
    edge_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, pair in (("crop_size", self.size), ("stride", self.stride)):
            if len(pair) != 2 or any(not isinstance(n, int) or n < 1 for n in pair):
                raise ValueError(f"test_cfg: {name}={pair} must be (height, width), pixels, 1 or more")
        if self.stride[0] > self.size[0] or self.stride[1] > self.size[1]:
            raise ValueError(f"test_cfg: stride={self.stride} above crop_size={self.size} leaves gaps between windows")
        if self.batch < 1:
            raise ValueError(f"test_cfg: window_batch={self.batch} must be 1 or more")
        if not 0 < self.edge_weight <= 1:
            raise ValueError(f"test_cfg: edge_weight={self.edge_weight} must be above 0, and 1 at most")

    @classmethod
    def of(cls, test_cfg: Mapping[str, Any]) -> SlidingWindow:
        """The one that `test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(341, 341))` means.

        Args:
            test_cfg: crop_size, stride; optional: window_batch, edge_weight.
        Raises:
            ValueError: crop_size or stride is missing, or as the class.
        """
        lacking = [name for name in _KEYS[:2] if name not in test_cfg]
        if lacking:
            raise ValueError(
                f'test_cfg with mode="slide" needs {" and ".join(lacking)}: '
                'dict(mode="slide", crop_size=(512, 512), stride=(341, 341))'
            )
        return cls(
            tuple(test_cfg["crop_size"]),
            tuple(test_cfg["stride"]),
            test_cfg.get("window_batch", cls.batch),
            test_cfg.get("edge_weight", cls.edge_weight),
        )

    def __call__(self, images: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """[B, K, H, W]: the windows' logits, blended.

        Args:
            images: [B, C, H, W].
            predict: windows [N, C, height, width] to logits [N, K, height, width].
        """
        height, width = images.shape[-2:]
        images = F.pad(images, (0, max(self.size[1] - width, 0), 0, max(self.size[0] - height, 0)))
        weight = self.weight(images.device)
        weights = torch.zeros(images.shape[-2:], dtype=weight.dtype, device=images.device)
        jobs: list[tuple[int, slice, slice]] = []
        for top in starts(images.shape[-2], self.size[0], self.stride[0]):
            for left in starts(images.shape[-1], self.size[1], self.stride[1]):
                rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
                weights[rows, columns] += weight
                jobs.extend((image, rows, columns) for image in range(len(images)))
        total: Tensor | None = None
        for first in range(0, len(jobs), self.batch):
            some = jobs[first : first + self.batch]
            logits = predict(torch.stack([images[image, :, rows, columns] for image, rows, columns in some]))
            if total is None:
                blended = torch.promote_types(logits.dtype, weight.dtype)  # half precision is too coarse for sums
                total = weights.new_zeros(len(images), logits.shape[1], *weights.shape, dtype=blended)
            for (image, rows, columns), window in zip(some, logits, strict=True):
                total[image, :, rows, columns] += window * weight
        assert total is not None
        return (total / weights)[..., :height, :width]

    def weight(self, device: torch.device) -> Tensor:
        """[height, width]: how much a window's prediction counts at each of its pixels."""
        rows, columns = (self._ramp(length, device) for length in self.size)
        return rows[:, None] * columns

    def _ramp(self, length: int, device: torch.device) -> Tensor:
        place = torch.arange(length, device=device) + 0.5
        inside = 2 * torch.minimum(place, length - place) / length
        return self.edge_weight + (1 - self.edge_weight) * inside


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis, so that every pixel is in one; the last ends at the border."""
    last = length - window
    return [min(start, last) for start in range(0, last + stride, stride)]

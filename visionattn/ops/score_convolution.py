"""A 3x3x3 convolution to a single channel as one matrix product and 27 shifted sums.

With one output a convolution kernel uses one lane of what a processor multiplies at once; the product with all taps
has 27.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_BYTES = 2**22
"""Of the 27 products, per thread: little memory, and few calls."""


def score_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """`F.conv3d(x, weight, padding=1)` for one output channel, differentiable once.

    Args:
        x: [B, C, D, H, W], best with channels last in memory.
        weight: [1, C, 3, 3, 3].
    Returns:
        [B, 1, D, H, W].
    """
    return _Scored.apply(x, weight)


class _Scored(torch.autograd.Function):
    """x [B, C, D, H, W], weight [1, C, 3, 3, 3] -> [B, 1, D, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        x = x.movedim(1, -1)
        out = x.new_zeros(x.shape[:-1])
        taps = weight[0].flatten(1).mT.contiguous()  # [27, C]
        for image, answer in zip(x, out, strict=True):
            for planes in _chunks(image):
                products = (taps @ image[planes].flatten(0, 2).mT).view(27, -1, *image.shape[1:3])
                for number, there, here in _shifts(planes, image.shape[:3]):
                    answer[here] += products[number][there]
        return out.unsqueeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        x = x.movedim(1, -1)
        to_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        taps = weight[0].flatten(1).mT.contiguous()
        to_taps = torch.zeros_like(taps)
        for image, slopes, to_image in zip(x, grad[:, 0], to_x, strict=True):
            for planes in _chunks(image):
                tokens = image[planes]
                shifted = tokens.new_zeros(27, *tokens.shape[:3])
                for number, there, here in _shifts(planes, image.shape[:3]):
                    shifted[number][there] = slopes[here]
                flat = shifted.flatten(1)  # [27, n]
                torch.mm(flat.mT, taps, out=to_image[planes].flatten(0, 2))
                to_taps.addmm_(flat, tokens.flatten(0, 2))
        return to_x.movedim(-1, 1), to_taps.mT.reshape(weight.shape)


def _chunks(image: Tensor) -> Iterator[slice]:
    """Planes of image [D, H, W, C] at a time."""
    plane_bytes = 27 * image[0, :, :, 0].numel() * image.element_size()
    step = max(1, _CHUNK_BYTES * torch.get_num_threads() // plane_bytes) if image.is_cpu else len(image)
    for start in range(0, len(image), step):
        yield slice(start, min(start + step, len(image)))


_Index = tuple[slice, slice, slice]


def _shifts(planes: slice, extent: tuple[int, ...]) -> Iterator[tuple[int, _Index, _Index]]:
    """For each tap, the positions of the chunk that it reads, counted from its first plane, and the answers they go to.

    The tap (i, j, k) of an answer at (d, y, x) reads (d + i, y + j, x + k).
    """
    depth, height, width = extent
    for number, (i, j, k) in enumerate(product((-1, 0, 1), repeat=3)):
        first, last = max(planes.start - i, 0), min(planes.stop - i, depth)
        rows, columns = (slice(max(-t, 0), n - max(t, 0)) for t, n in ((j, height), (k, width)))
        there = (
            slice(first + i - planes.start, last + i - planes.start),
            slice(rows.start + j, rows.stop + j),
            slice(columns.start + k, columns.stop + k),
        )
        if first < last:
            yield number, there, (slice(first, last), rows, columns)

"""The first 3-D convolution over a concatenation volume, folded: exact, and no volume is ever made.

V[d, y, x] = (L[y, x], R[y, x - d]) where x >= d, and 0 elsewhere. A 3x3x3 convolution of it, taps (i, j, k) at
(d + i, y + j, x + k), needs no sum over disparities of its own:

    of R:  R[y + j, (x - d) + (k - i)]             a 2-D convolution of R, 3x5, read at x - d
    of L:  L[y + j, x + k] where k - i >= d - x    a 2-D convolution of L; five kernels, by how far x lies from d

Three things end where these formulas go on: planes -1 and D are not in the volume, so the first and the last plane are
convolved by themselves; and column W is not, though R has a value for it where d >= 1: its taps are subtracted from the
last column. For 64 channels, 32 outputs and 48 planes that is a twentieth of the multiplications.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionattn.ops.cost_volume import check_maps
from visionattn.ops.kernels.memory_order import empty_volume

_NEAR = 4
"""Columns x = d - 2 .. d + 1: not all taps of L see it there. From x = d + 2 on, all do."""


def concatenation_convolution(left: Tensor, right: Tensor, weight: Tensor, disparities: int) -> Tensor:
    """`F.conv3d(concatenation_volume(left, right, disparities), weight, padding=1)`, differentiable once.

    Args:
        left, right: [B, C, H, W].
        weight: [O, 2 C, 3, 3, 3].
        disparities: D, 3 or more.
    Returns:
        [B, O, D, H, W], channels last in memory.
    Raises:
        ValueError: other shapes.
    """
    return _Assembled.apply(*concatenation_parts(left, right, weight, disparities))


def concatenation_parts(
    left: Tensor, right: Tensor, weight: Tensor, disparities: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The 2-D convolutions that `assembled` makes the answer of; arguments and errors as `concatenation_convolution`.

    Returns:
        What L adds in columns x = d - 2, .., d + 1, and from d + 2 on, [B, 5, O, H, W]; what R adds at x - d = -2, ..,
        W - 1, [B, O, H, W + 2]; what R would add to the last column, had the volume a column W, [B, O, H, D]; the first
        and the last plane, [B, O, H, W].
    """
    check_maps(left, right, disparities)
    channels = left.shape[1]
    if disparities < 3 or weight.shape[1:] != (2 * channels, 3, 3, 3):
        raise ValueError(
            f"expected 3 disparities or more and a weight [O, {2 * channels}, 3, 3, 3], "
            f"got {disparities} and {list(weight.shape)}"
        )
    of_left, of_right = torch.split(weight, channels, dim=1)
    return (
        _near_and_far(left, of_left),
        _slanted(right, of_right),
        _beyond(right, of_right, disparities),
        _end_plane(left, right, weight, (0, 1), (1, 2)),
        _end_plane(left, right, weight, (disparities - 2, disparities - 1), (0, 1)),
    )


def _near_and_far(left: Tensor, weight: Tensor) -> Tensor:
    """What L adds in columns x = d - 2, .., d + 1, and from d + 2 on: [B, 5, O, H, W]."""
    tap = torch.arange(3, device=left.device)
    lag = tap - tap[:, None]  # [i, k]
    seen = lag >= torch.arange(_NEAR // 2, -3, -1, device=left.device)[:, None, None]  # [5, i, k]
    kernels = torch.einsum("eik,ocijk->eocjk", seen.to(weight.dtype), weight)
    return torch.unflatten(F.conv2d(left, kernels.flatten(0, 1), padding=1), 1, (5, -1))


def _slanted(right: Tensor, weight: Tensor) -> Tensor:
    """What R adds at x - d = -2, .., W - 1: [B, O, H, W + 2]."""
    kernel = sum(F.pad(weight[:, :, i], (2 - i, i)) for i in range(3))
    return F.conv2d(F.pad(right, (4, 2)), kernel, padding=(1, 0))  # type: ignore[arg-type]


def _beyond(right: Tensor, weight: Tensor, disparities: int) -> Tensor:
    """What the taps k = 1 would add to the last column, had the volume a column W: [B, O, H, D]."""
    column = F.pad(right.flip(3), (1, max(disparities - 1 - right.shape[3], 0)))[..., :disparities]  # R at W - d
    return F.conv2d(column, weight[..., 2].transpose(2, 3), padding=1)


def _end_plane(
    left: Tensor, right: Tensor, weight: Tensor, disparities: tuple[int, int], taps: tuple[int, int]
) -> Tensor:
    """The convolution's first or last plane, from the only two planes of the volume that it sees: [B, O, H, W]."""
    width = left.shape[3]
    column = torch.arange(width, device=left.device)
    planes = []
    for disparity in disparities:
        planes += [left * (column >= disparity).to(left.dtype), F.pad(right, (disparity, 0))[..., :width]]
    return F.conv2d(torch.cat(planes, dim=1), torch.cat([weight[:, :, tap] for tap in taps], dim=1), padding=1)


class _Assembled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
        return assembled(of_left, of_right, beyond, first, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return assembled_gradients(grad)


def assembled(of_left: Tensor, of_right: Tensor, beyond: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The planes [B, O, D, H, W] from their parts, which are as `concatenation_parts` has them; no derivative.

    Each number of the volume is written once, channels last in memory.
    """
    batch, _, outputs, height, width = of_left.shape
    far, slanted = (t.contiguous(memory_format=torch.channels_last) for t in (of_left[:, _NEAR], of_right))
    out = empty_volume(far, batch, outputs, beyond.shape[3], height, width)
    for plane, start in _inner_planes(out):
        plane[..., : max(start - _NEAR, 0)] = 0
        torch.add(far[..., start:], _read_at(slanted, start, width), out=plane[..., start:])
    for near, diagonal, columns in _near_diagonals(out):
        diagonal.copy_(of_left[:, near][..., columns] + slanted[..., near, None])
    out[:, :, 1:-1, :, -1] -= beyond[..., 1:-1].mT
    out[:, :, 0], out[:, :, -1] = first, last
    return out


def assembled_gradients(grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of all parts from that of the planes, of which each is read once."""
    batch, outputs, disparities, height, width = grad.shape
    of_left = grad.new_zeros(batch, 5, outputs, height, width)
    beyond = grad.new_zeros(batch, outputs, height, disparities)
    far = grad.new_zeros(batch, height, width, outputs).movedim(-1, 1)
    slanted = grad.new_zeros(batch, height, width + 2, outputs).movedim(-1, 1)
    for plane, start in _inner_planes(grad):
        far[..., start:] += plane[..., start:]
        _read_at(slanted, start, width).add_(plane[..., start:])
    of_left[:, _NEAR] = far
    for near, diagonal, columns in _near_diagonals(grad):
        of_left[:, near][..., columns] = diagonal
        slanted[..., near] += diagonal.sum(-1)
    beyond[..., 1:-1] = -grad[:, :, 1:-1, :, -1].mT
    return of_left, slanted, beyond, grad[:, :, 0], grad[:, :, -1]


def _inner_planes(volume: Tensor) -> Iterator[tuple[Tensor, int]]:
    """Planes 1 to D - 2 of [B, O, D, H, W], and the column from which all taps see L."""
    for disparity in range(1, volume.shape[2] - 1):
        yield volume[:, :, disparity], disparity + _NEAR // 2


def _read_at(slanted: Tensor, start: int, width: int) -> Tensor:
    """The part of what R adds that columns `start` and on read, where start = d + 2."""
    return slanted[..., _NEAR : _NEAR + max(width - start, 0)]


def _near_diagonals(volume: Tensor) -> Iterator[tuple[int, Tensor, slice]]:
    """Which of the near kernels, where its columns x = d - 2 + near lie [B, O, H, n], and which columns those are."""
    inner = volume[:, :, 1:-1]
    for near in range(_NEAR):
        offset = near - _NEAR // 2 + 1  # of x from the inner plane's number
        if -inner.shape[2] < offset < inner.shape[4]:
            diagonal = inner.diagonal(offset, dim1=2, dim2=4)
            start = max(offset, 0)
            yield near, diagonal, slice(start, start + diagonal.shape[-1])

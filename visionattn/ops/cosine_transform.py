"""The orthonormal discrete cosine transform (DCT-II), and maps that are cut down to their low frequencies with it.

    X_k = s_k sum_i x_i cos(pi (2 i + 1) k / 2n)       s_0 = sqrt(1 / n), s_k = sqrt(2 / n)

As products with the n cosines of each frequency kept: no complex numbers and no power of two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.precision import at_least_float32, without_autocast

_LARGEST: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_max_pool1d,
    2: F.adaptive_max_pool2d,
    3: F.adaptive_max_pool3d,
}


def cosine_basis(extent: int, frequencies: int, like: Tensor) -> Tensor:
    """The lowest frequencies of a line of `extent` numbers, [frequencies, extent]; all of them: an orthogonal matrix.

    Args:
        like: what it is for; gives dtype and device.
    """
    places = 2 * torch.arange(extent, device=like.device) + 1
    numbers = torch.arange(frequencies, device=like.device)
    half_turn = places[-1] + 1  # 2 extent, as a tensor: a divisor that is a symbolic number has no ONNX form
    # Whole turns are taken off as integers: float32 has no digits left for the cosine of a large angle.
    angles = (numbers[:, None] * places % (2 * half_turn)).to(like.dtype) * (math.pi / half_turn.to(like.dtype))
    scale = ((4 - 2 * (numbers == 0).to(like.dtype)) / half_turn.to(like.dtype)).sqrt()
    return scale[:, None] * angles.cos()


def low_passed(maps: Tensor, size: Sequence[int], *, keep_amplitude: bool) -> Tensor:
    """Maps of another, smaller size with the same low frequencies: the inverse transform of those that it has room for.

    Args:
        maps: [B, *grid, C].
        size: extents, each at most that of the grid.
        keep_amplitude: a constant stays what it is; False: it grows by sqrt(tokens / tokens left), as the two
            orthonormal transforms have it.
    Returns:
        [B, *size, C], in the dtype of maps.
    """
    with without_autocast(maps.device):
        out = at_least_float32(maps)
        grid = maps.shape[1:-1]
        bases = [cosine_basis(extent, kept, out) for extent, kept in zip(grid, size, strict=True)]
        for axis, basis in enumerate(bases, start=1):
            out = _along(axis, basis, out)
        for axis, (basis, kept) in enumerate(zip(bases, size, strict=True), start=1):
            inverse = cosine_basis(kept, kept, out)
            if keep_amplitude:
                inverse = inverse * (basis[0, 0] / inverse[0, 0])  # sqrt(kept / extent)
            out = _along(axis, inverse.mT, out)
        return out.to(maps.dtype)


def cells_with_real_tokens(mask: Tensor, size: Sequence[int]) -> Tensor:
    """Which cells of a coarser map of `size` [B, *size] cover a real token of the mask [B, *grid] bool."""
    return _LARGEST[len(size)](mask[:, None].float(), tuple(size))[:, 0] > 0


def _along(axis: int, matrix: Tensor, maps: Tensor) -> Tensor:
    """matrix [M, N] times every line of maps along the axis, whose extent is N."""
    return (matrix @ maps.movedim(axis, -2)).movedim(-2, axis)

"""Where the tokens of a window lie to each other, in the coordinates that Swin V2 reads (arXiv 2111.09883, eq. 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def log_spaced_offsets(window: Sequence[int], pretrained_window: Sequence[int] | None = None) -> Tensor:
    """The coordinates of every offset in a window: sign(x) log2(1 + |x|) / log2 8.

    x is the offset over that of the pretraining window's edge, times 8: within the window of the pretraining the
    coordinates lie in [-log2 9 / 3, log2 9 / 3].

    Args:
        window: one entry per axis.
        pretrained_window: the window in which the network that reads the coordinates was trained; `window` if None.
    Returns:
        [prod(2 * window - 1), axes] in float32, row-major in the offset query - key as `relative_position_index`.
    """
    trained = window if pretrained_window is None else pretrained_window
    axes = []
    for length, edge in zip(window, trained, strict=True):
        offset = torch.arange(1 - length, length, dtype=torch.float64) * (8 / max(edge - 1, 1))
        axes.append(offset.sign() * (offset.abs() + 1).log2() / 3)
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2).float()

"""Spatial gating (Liu et al., Pay Attention to MLPs, NeurIPS 2021, arXiv 2105.08050, equation 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.token_mixing import resized_token_mixing


def spatial_gate(
    values: Tensor, gate: Tensor, mixing: Tensor, bias: Tensor, mask: Tensor | None = None, extra: Tensor | None = None
) -> Tensor:
    """values * (mixing @ gate + bias + extra).

    Args:
        values: [B, N, D].
        gate: [B, N, D]; summed over tokens in float32 at least.
        mixing: [heads, N, N]; heads are chunks of the channels.
        bias: [heads, N].
        mask: [B, N] bool, True where a token is real; the others give nothing to the sums.
        extra: [B, N, D], another gate.
    Returns:
        [B, N, D], in the dtype of values.
    """
    with without_autocast(values.device):
        split = torch.unflatten(at_least_float32(gate), -1, (len(mixing), -1)).transpose(1, 2)  # [B, heads, N, d]
        if mask is not None:
            split = split.masked_fill(~mask[:, None, :, None], 0.0)
        mixed = mixing.to(split.dtype) @ split + bias.to(split.dtype)[..., None]
        mixed = mixed.transpose(1, 2).flatten(2)
        if extra is not None:
            mixed = mixed + extra
        return (at_least_float32(values) * mixed).to(values.dtype)


def resized_gate(mixing: Tensor, bias: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
    """[heads, *grid0, *grid0] and [heads, *grid0] as [heads, N, N] and [heads, N] of another grid."""
    pairs = [resized_token_mixing(matrix, grid, offset) for matrix, offset in zip(mixing, bias, strict=True)]
    return torch.stack([matrix for matrix, _ in pairs]), torch.stack([o for _, o in pairs if o is not None])

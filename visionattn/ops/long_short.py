"""The parts of long-short attention (Zhu et al., NeurIPS 2021, arXiv 2107.02192, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.efficient_attention import softmax_over_positions
from visionattn.ops.precision import at_least_float32, without_autocast


def dynamic_projection(scores: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """P tokens with P = softmax of the scores over positions (equation 3), in float32 at least.

    Args:
        scores: [B, heads, N, R], what every position says of each of the R sums.
        tokens: [B, heads, N, D].
        mask: [B, N] bool, True where a token is real; without any the answer is 0.
    Returns:
        [B, heads, R, D].
    """
    with without_autocast(tokens.device):
        weights = softmax_over_positions(at_least_float32(scores), mask)
        return weights.mT @ at_least_float32(tokens)


def tile_offset_index(tile: Sequence[int], margin: Sequence[int]) -> Tensor:
    """For every (query, key) of a tile and the tile with its margin the row of a bias table, [T, S].

    Rows are the offsets query - key, 2 (tile + margin) - 1 along every axis, row-major.
    """
    dims, index = len(tile), torch.zeros((), dtype=torch.long)
    for axis, (length, around) in enumerate(zip(tile, margin, strict=True)):
        reach = length + around - 1
        offset = torch.arange(length)[:, None] - torch.arange(-around, length + around) + reach
        spread = [1] * (2 * dims)
        spread[axis], spread[dims + axis] = offset.shape
        index = index * (2 * reach + 1) + offset.view(spread)
    return index.flatten(0, dims - 1).flatten(1)


def answers_of_tokens(q: Tensor, k: Tensor, v: Tensor, answers: Tensor, mask: Tensor | None = None) -> Tensor:
    """What tokens without a place see: themselves, and the map's own answers in the place of its keys and values.

    Args:
        q, k, v: of the tokens, [B, heads, P, D].
        answers: of the map, [B, heads, N, D].
        mask: [B, N] bool, True where a token of the map is real.
    Returns:
        [B, heads, P, D].
    """
    seen = None if mask is None else F.pad(mask, (k.shape[2], 0), value=True)[:, None, None]
    return F.scaled_dot_product_attention(
        q, torch.cat([k, answers], dim=2), torch.cat([v, answers], dim=2), attn_mask=seen
    )

"""The strided and the fixed pattern of sparse transformers (Child et al., arXiv 1904.10509, section 4.2) as blocks.

Each is two parts (ops/block_attention.py) over tokens in a row, their pairs merged into one softmax. A pair that both
parts of the paper have is kept in the first alone.
"""

from __future__ import annotations

import torch

from visionattn.ops.block_attention import Blocks, blocks
from visionattn.ops.neighborhood import ngram_blocks


def strided_pairs(tokens: int, stride: int, *, causal: bool, device: torch.device | None = None) -> list[Blocks]:
    """Keys nearer than `stride`, and those a multiple of `stride` away.

    Args:
        tokens: N.
        stride: l, 1 or more.
        causal: only keys up to the query.
    """
    return [
        near_pairs(tokens, stride, causal=causal, device=device),
        column_pairs(tokens, stride, causal=causal, own=False, device=device),
    ]


def fixed_pairs(
    tokens: int, stride: int, summary: int, *, causal: bool, device: torch.device | None = None
) -> list[Blocks]:
    """Keys in the query's block of `stride` tokens, and the last `summary` of every block.

    Args:
        tokens: N.
        stride: l, 1 or more.
        summary: c; all of a block where it is longer.
        causal: only keys up to the query.
    """
    return [
        block_pairs(tokens, stride, causal=causal, device=device),
        summary_pairs(tokens, stride, summary, causal=causal, device=device),
    ]


def near_pairs(tokens: int, stride: int, *, causal: bool, device: torch.device | None = None) -> Blocks:
    """|i - j| < stride; causal: i - stride < j <= i."""
    if causal:
        return ngram_blocks(tokens, stride, device)
    starts = _starts(tokens, stride, device)
    queries = starts + torch.arange(stride, device=device)
    keys = starts + torch.arange(1 - stride, 2 * stride - 1, device=device)
    back = queries[:, :, None] - keys[:, None, :]
    return blocks(queries, keys, back.abs() < stride, tokens)


def column_pairs(tokens: int, stride: int, *, causal: bool, own: bool, device: torch.device | None = None) -> Blocks:
    """(i - j) % stride = 0; the query itself only with `own`."""
    columns = (_starts(tokens, stride, device) + torch.arange(stride, device=device)).mT
    number = torch.arange(columns.shape[1], device=device)
    back = number[:, None] - number
    seen = (back >= 0) if causal else torch.ones_like(back, dtype=torch.bool)
    return blocks(columns, columns, (seen if own else seen & (back != 0))[None], tokens)


def block_pairs(tokens: int, stride: int, *, causal: bool, device: torch.device | None = None) -> Blocks:
    """floor(i / stride) = floor(j / stride)."""
    inside = torch.arange(stride, device=device)
    members = _starts(tokens, stride, device) + inside
    seen = inside[:, None] >= inside
    return blocks(members, members, (seen if causal else torch.ones_like(seen))[None], tokens)


def summary_pairs(
    tokens: int, stride: int, summary: int, *, causal: bool, device: torch.device | None = None
) -> Blocks:
    """j % stride >= stride - summary, of other blocks than the query's; causal: of those before it."""
    starts = _starts(tokens, stride, device)
    number = torch.arange(starts.shape[0], device=device)[:, None]
    inside = torch.arange(-summary, 0, device=device) + stride
    keys = torch.where(inside >= 0, starts + inside, tokens).flatten()
    # The block of each query without a division: a divisor that is a symbolic number has no ONNX form.
    back = number.expand(-1, stride).flatten()[:tokens, None] - number.expand(-1, summary).flatten()
    queries = torch.arange(tokens, device=device)
    return blocks(queries[None], keys[None], ((back > 0) if causal else (back != 0))[None], tokens)


def _starts(tokens: int, stride: int, device: torch.device | None) -> torch.Tensor:
    """[blocks, 1], where each block of `stride` tokens begins."""
    return torch.arange((tokens + stride - 1) // stride, device=device)[:, None] * stride

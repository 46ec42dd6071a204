"""Non-local operations on single-head q, k, v (Wang et al., Non-local Neural Networks, CVPR 2018, equations 2 to 6).

Every softmax and every sum over tokens runs in float32 at least, also under autocast.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.efficient_attention import scaled_efficient_attention
from visionattn.ops.precision import at_least_float32, without_autocast


def gaussian_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
    """softmax(scale * Q K^T) V through PyTorch's fused scaled_dot_product_attention.

    Args:
        q: [B, N, D].
        k: [B, M, D].
        v: [B, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
        scale: 1 is the paper's form.
    Returns:
        [B, N, E].
    """
    value_dim = v.shape[-1]
    width = max(q.shape[-1], value_dim)
    seen = attn_mask = None
    if mask is not None:
        # Not every backend answers a row without keys with 0: let it see all of them, and clear it afterwards.
        seen = mask.any(dim=1, keepdim=True)
        attn_mask = (mask | ~seen)[:, None, None, :]
    q, k, v = (_fused_layout(t, width)[:, None] for t in (q, k, v))  # [B, 1, N or M, width]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale)[:, 0, :, :value_dim]
    return out if seen is None else out.masked_fill(~seen[:, :, None], 0.0)


def dot_product_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """(Q K^T) V / M, with M the number of real keys, in whichever association multiplies less.

    No nonlinearity stands between the products, so Q (K^T V) is the same number: (N + M) D E multiplications instead of
    N M (D + E), linear in the tokens.

    Args:
        q: [B, N, D].
        k: [B, M, D].
        v: [B, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
    Returns:
        [B, N, E], in the dtype of v.
    """
    (n, d), (m, e) = q.shape[-2:], v.shape[-2:]
    if (n + m) * d * e <= n * m * (d + e):
        return scaled_efficient_attention(q[:, None], k[:, None], v[:, None], mask)[:, 0]
    with without_autocast(q.device):
        q, k, values = (at_least_float32(t) for t in (q, k, v))
        if mask is not None:
            k, values = (t.masked_fill(~mask[:, :, None], 0.0) for t in (k, values))
        return (q @ k.transpose(-2, -1) @ values / _number_of_keys(k, mask)).to(v.dtype)


def concatenation_attention(a: Tensor, b: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """relu(a_i + b_j) V / M, with M the number of real keys.

    The paper's w^T [theta_i, phi_j] is a sum of one number per query and one per key, so nothing of size N x M x 2 D is
    ever made, only the N x M weights.

    Args:
        a: [B, N], the half of w that meets the queries, times theta.
        b: [B, M], the half of w that meets the keys, times phi.
        v: [B, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
    Returns:
        [B, N, E], in the dtype of v.
    """
    with without_autocast(v.device):
        a, b, values = (at_least_float32(t) for t in (a, b, v))
        if mask is not None:
            b, values = b.masked_fill(~mask, 0.0), values.masked_fill(~mask[:, :, None], 0.0)
        weights = (a[:, :, None] + b[:, None, :]).relu()  # [B, N, M]
        return (weights @ values / _number_of_keys(values, mask)).to(v.dtype)


def max_pool_tokens(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """The largest real token of every 2, 2 x 2 or (in a volume, whose depth stays) 1 x 2 x 2, channel by channel.

    Args:
        tokens: [B, *grid, C].
        mask: [B, *grid] bool, True where a token is real.
    Returns:
        [B, *pooled_grid, C]: odd extents lose their last token; 0 where none of the pooled tokens is real.
    Raises:
        ValueError: the grid is smaller than what is pooled.
    """
    if mask is None:
        return _max_pool(tokens.movedim(-1, 1)).movedim(1, -1)
    hidden = tokens.masked_fill(~mask[..., None], torch.finfo(tokens.dtype).min)
    return _max_pool(hidden.movedim(-1, 1)).movedim(1, -1).masked_fill(~max_pool_mask(mask)[..., None], 0.0)


def max_pool_mask(mask: Tensor) -> Tensor:
    """[B, *pooled_grid] bool, True where any of the tokens that `max_pool_tokens` pools is real in mask [B, *grid]."""
    return _max_pool(mask[:, None].float())[:, 0] > 0


def _max_pool(channels_first: Tensor) -> Tensor:
    grid = tuple(channels_first.shape[2:])
    window = ((2,), (2, 2), (1, 2, 2))[len(grid) - 1]
    if any(extent < size for extent, size in zip(grid, window, strict=True)):
        raise ValueError(f"sub-sampling by {window} leaves no token of the grid {grid}; use sub_sample=False")
    pooled: Tensor = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(grid) - 1](channels_first, window)
    return pooled


def _fused_layout(t: Tensor, width: int) -> Tensor:
    """t [B, N, D] zero-padded to [B, N, width], last stride 1: the fused kernels refuse anything else.

    Zero channels change neither Q K^T nor the channels of the answer that are kept.
    """
    if t.shape[-1] < width:
        return F.pad(t, (0, width - t.shape[-1]))
    return t if t.stride(-1) == 1 else t.contiguous()


def _number_of_keys(keys: Tensor, mask: Tensor | None) -> Tensor | int:
    return keys.shape[1] if mask is None else mask.sum(dim=1).clamp(min=1)[:, None, None]

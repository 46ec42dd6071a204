"""Attention whose weights are products of non-negative features, phi(q) . phi(k): linear in the number of tokens.

    out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / phi(q_i)^T sum_j phi(k_j)

Features of linear attention (Katharopoulos et al., ICML 2020, arXiv 2006.16236) and of FAVOR+ (Choromanski et al.,
Rethinking Attention with Performers, ICLR 2021, arXiv 2009.14794). All sums run in float32 at least.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.kernels.dispatch import asked_for, serves
from visionattn.ops.kernels.feature_attention import feature_attention_op
from visionattn.ops.precision import at_least_float32, without_autocast

LINEAR_EPS = 1e-6
FAVOR_EPS = 1e-4
RELU_EPS = 1e-3


def linear_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with the features elu + 1; without 1 / sqrt(d), and with 1e-6 added to every sum of weights.

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    if asked_for(q) and serves("feature_attention", q, k, v, mask):
        return feature_attention_op(q, k, v, None, mask)[0]
    with without_autocast(q.device):
        queries, keys = elu_plus_one(at_least_float32(q)), elu_plus_one(at_least_float32(k))
        return feature_attention(queries, keys, at_least_float32(v), mask, eps=LINEAR_EPS).to(v.dtype)


def favor_attention(q: Tensor, k: Tensor, v: Tensor, projection: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention with the positive features of FAVOR+.

    Args:
        q: [B, heads, N, D].
        k: [B, heads, M, D].
        v: [B, heads, M, E].
        projection: W [R, D], as `orthogonal_projection` draws it.
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
    Returns:
        [B, heads, N, E], in the dtype of v.
    """
    if asked_for(q) and not projection.requires_grad and serves("feature_attention", q, k, v, mask, projection):
        return feature_attention_op(q, k, v, projection, mask)[0]
    with without_autocast(q.device):
        q, k, values = (at_least_float32(t) for t in (q, k, v))
        projection = projection.to(q.dtype)
        queries, keys = favor_query_features(q, projection), favor_key_features(k, projection, mask)
        return feature_attention(queries, keys, values, mask).to(v.dtype)


def feature_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, eps: float = 0.0) -> Tensor:
    """The equation above.

    Args:
        q: features of the queries, [B, heads, N, R], none below 0.
        k: features of the keys, [B, heads, M, R].
        v: [B, heads, M, E], of their dtype.
        mask: [B, M] bool, True where a key is real; without any real key the answer is 0.
        eps: added to the denominator.
    Returns:
        [B, heads, N, E].
    """
    if mask is not None:
        k = k.masked_fill(~mask[:, None, :, None], 0.0)
    context = torch.cat([k.mT @ v, k.sum(dim=-2).unsqueeze(-1)], dim=-1)  # [B, heads, R, E + 1]
    attended = q @ context
    total = attended[..., -1:] + eps
    total = total.masked_fill(total == 0, 1.0)  # 0 without any real key: the numerator is 0 too
    return attended[..., :-1] * total.reciprocal()


def elu_plus_one(x: Tensor) -> Tensor:
    """elu(x) + 1: above 0 everywhere, short of underflow."""
    return F.elu(x) + 1


def favor_query_features(q: Tensor, projection: Tensor) -> Tensor:
    """Positive features whose products with those of keys estimate exp(q . k / sqrt(D)), up to a factor that cancels.

    R^-1/2 (exp(W x' - |x'|^2 / 2 - m) + 1e-4) with x' = x / D^1/4 and m the largest W x' of the token.

    Args:
        q: [B, heads, N, D].
        projection: W [R, D], as `orthogonal_projection` draws it.
    Returns:
        [B, heads, N, R].
    """
    along, half_squares = _along(q, projection)
    return _floored(along - half_squares, along.amax(dim=-1, keepdim=True))


def favor_key_features(k: Tensor, projection: Tensor, mask: Tensor | None = None) -> Tensor:
    """As `favor_query_features`, with m the largest W x' of all real keys of a head and image: [B, heads, M, R].

    Args:
        k: [B, heads, M, D].
        projection: W [R, D].
        mask: [B, M] bool, True where a key is real.
    """
    along, half_squares = _along(k, projection)
    exponents = along - half_squares
    if mask is not None:  # what is padded shall not even move the floor of the others
        padded = ~mask[:, None, :, None]
        along, exponents = (
            along.masked_fill(padded, torch.finfo(k.dtype).min),
            exponents.masked_fill(padded, -torch.inf),
        )
    return _floored(exponents, along.amax(dim=(-1, -2), keepdim=True))


def favor_exponents(x: Tensor, projection: Tensor) -> Tensor:
    """W x' - |x'|^2 / 2 with x' = x / D^1/4: [B, heads, N, R]."""
    along, half_squares = _along(x, projection)
    return along - half_squares


def _along(x: Tensor, projection: Tensor) -> tuple[Tensor, Tensor]:
    x = x * x.shape[-1] ** -0.25
    return x @ projection.mT, x.square().sum(dim=-1, keepdim=True) / 2


def _floored(exponents: Tensor, largest: Tensor) -> Tensor:
    return exponents.shape[-1] ** -0.5 * ((exponents - largest.detach()).exp() + FAVOR_EPS)


def hyperbolic_features(x: Tensor, projection: Tensor, *, stabilised: bool = False) -> Tensor:
    """The estimator with both signs, R^-1/2 exp(+-W x' - |x'|^2 / 2): features [B, heads, N, R], R twice W's rows.

    Args:
        x: [B, heads, N, D].
        projection: W [R / 2, D].
        stabilised: divided by exp(largest |x'|^2 of a head and image), as idiap/fast-transformers does.
    """
    along, half_squares = _along(x, projection)
    offset = half_squares + math.log(2 * len(projection)) / 2
    if stabilised:
        offset = offset + 2 * half_squares.amax(dim=-2, keepdim=True)
    return torch.cat([(along - offset).exp(), (-along - offset).exp()], dim=-1)


def relu_features(x: Tensor, projection: Tensor) -> Tensor:
    """relu(W x') + 1e-3 with x' = x / D^1/4, the generalised attention of the same paper: [B, heads, N, R]."""
    return F.relu((x * x.shape[-1] ** -0.25) @ projection.mT) + RELU_EPS


def orthogonal_projection(features: int, dim: int, generator: torch.Generator) -> Tensor:
    """W [features, dim] in float32: rows orthogonal in blocks of dim, each as long as a Gaussian vector would be.

    Args:
        generator: of the CPU, so that every device and process draws the same.
    """
    blocks = []
    for _ in range(0, features, dim):
        basis, triangle = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))
        blocks.append((basis * triangle.diagonal().sign()).mT)  # the signs make the basis uniform (Haar)
    lengths = torch.randn(features, dim, generator=generator, dtype=torch.float64).norm(dim=1, keepdim=True)
    return (torch.cat(blocks)[:features] * lengths).float()

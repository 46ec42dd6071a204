"""The truth of `visionattn::feature_attention` in plain PyTorch, forward and backward.

Arguments are those of the ops. Every sum runs in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.kernels.memory_order import empty_answer
from visionattn.ops.precision import at_least_float32, without_autocast

ELU_EPS = 1e-6
FAVOR_EPS = 1e-4


def forward(
    q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The answer, C, z, den, the largest of the keys and of the queries."""
    with without_autocast(q.device):
        queries, keys, values = (at_least_float32(t) for t in (q, k, v))
        length = k.shape[-2]
        if projection is None:
            largest_key, largest_query = queries.new_empty(0), queries.new_empty(0)
            phi_q, phi_k, eps = F.elu(queries) + 1, F.elu(keys) + 1, ELU_EPS / length
        else:
            along = _along(keys, projection)
            if mask is not None:
                along = along.masked_fill(~mask[:, None, :, None], torch.finfo(along.dtype).min)
            largest_key, largest_query = along.amax((-1, -2)), _along(queries, projection).amax(-1)
            if mask is not None:
                largest_key = largest_key.masked_fill(~mask.any(1)[:, None], 0.0)
            phi_q = _exponentials(queries, projection, largest_query[..., None]) + FAVOR_EPS
            phi_k, eps = _exponentials(keys, projection, largest_key[..., None, None]) + FAVOR_EPS, 0.0
        phi_k = _masked(phi_k, mask)
        context, total = phi_k.mT @ values / length, phi_k.sum(-2) / length
        denominators = (phi_q @ total[..., None])[..., 0] + eps
        denominators = denominators.masked_fill(denominators == 0, 1.0)  # no real key: the numerator is 0 too
        answer = empty_answer(q, v).copy_(phi_q @ context / denominators[..., None])
        return answer, context, total, denominators, largest_key, largest_query


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    projection: Tensor | None,
    mask: Tensor | None,
    answer: Tensor,
    context: Tensor,
    total: Tensor,
    denominators: Tensor,
    largest_key: Tensor,
    largest_query: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    with without_autocast(q.device):
        grad, out, queries, keys, values = (at_least_float32(t) for t in (grad, answer, q, k, v))
        length = k.shape[-2]
        if projection is None:
            phi_q, phi_k = F.elu(queries) + 1, F.elu(keys) + 1
        else:
            exp_q = _exponentials(queries, projection, largest_query[..., None])
            exp_k = _exponentials(keys, projection, largest_key[..., None, None])
            exp_k = _masked(exp_k, mask)  # what is padded may be above the largest: infinity times 0
            phi_q, phi_k = exp_q + FAVOR_EPS, exp_k + FAVOR_EPS
        g = grad / denominators[..., None]
        t = -(grad * out).sum(-1) / denominators
        grad_context, grad_total = phi_q.mT @ g / length, (phi_q * t[..., None]).sum(-2) / length
        grad_phi_q = g @ context.mT + t[..., None] * total[:, :, None]
        grad_phi_k = _masked(values @ grad_context.mT + grad_total[:, :, None], mask)
        grad_v = _masked(phi_k, mask) @ grad_context
        if projection is None:
            grad_q = grad_phi_q * torch.where(queries > 0, 1.0, queries.exp())
            grad_k = grad_phi_k * torch.where(keys > 0, 1.0, keys.exp())
        else:
            grad_q = _through_favor(grad_phi_q * exp_q, queries, projection)
            grad_k = _through_favor(grad_phi_k * exp_k, keys, projection)
        return (
            torch.empty_like(q).copy_(grad_q),
            torch.empty_like(k).copy_(grad_k),
            torch.empty_like(v).copy_(grad_v),
        )


def _along(x: Tensor, projection: Tensor) -> Tensor:
    return x @ projection.to(x.dtype).mT * x.shape[-1] ** -0.25


def _exponentials(x: Tensor, projection: Tensor, largest: Tensor) -> Tensor:
    half_squares = x.square().sum(-1, keepdim=True) / (2 * x.shape[-1] ** 0.5)
    return (_along(x, projection) - half_squares - largest).exp()


def _through_favor(grad: Tensor, x: Tensor, projection: Tensor) -> Tensor:
    """The gradient of x from that of the exponents W x' - |x'|^2 / 2."""
    width = x.shape[-1]
    return grad @ projection.to(x.dtype) * width**-0.25 - grad.sum(-1, keepdim=True) * x * width**-0.5


def _masked(features: Tensor, mask: Tensor | None) -> Tensor:
    return features if mask is None else features.masked_fill(~mask[:, None, :, None], 0.0)

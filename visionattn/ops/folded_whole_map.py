"""Folded efficient attention with every step on whole maps, in as few calls as it takes; forward and backward.

The algebra and its names are those of `folded_efficient_attention`. Whatever has the size of the map lies channels
first, whatever the order of x: then every product of matrices and every sum runs along rows. Rows of whole pages are
kept apart by a cache line: at the same place of every page they would compete for the same few lines of a cache.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionattn.ops.folded_mixing import Mixing, MixingGradients, Options, Weights, scaled

_SAFE = (1e-20, 1e20)
_PAGE, _LINE = 4096, 64  # bytes


class Saved(NamedTuple):
    """What the backward needs."""

    exponentials: Tensor  # [B, 2 D, N]: R, then E = exp(K - shift)
    totals: Tensor  # [B, 1, D], row sums of E


class FoldedWholeMap(torch.autograd.Function):
    """residual + scale * proj(efficient attention of qkv(x)) with its backward in closed form."""

    @staticmethod
    def forward(
        ctx: Any, options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, *weights: Tensor | None
    ) -> Tensor:
        layers = Weights(*weights)  # type: ignore[arg-type]  # only the biases may be None
        saved, mixing = _attend(options, x, layers)
        ctx.options = options
        ctx.save_for_backward(x, residual, scale, *weights, *saved, *mixing)
        return _mix(options, x, residual, saved, scaled(mixing.matrix, scale))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heads, dim, temperature, adds_x = ctx.options
        x, residual, scale, *rest = ctx.saved_tensors
        weights, saved, mixing = Weights(*rest[:4]), Saved(*rest[4:6]), Mixing(*rest[6:])
        _, needs_x, _, _, needs_qkv, needs_qkv_bias, *_ = ctx.needs_input_grad
        maps, grad_maps = x.mT, grad.mT
        queries, keys = saved.exponentials[:, :dim], saved.exponentials[:, dim:]

        # y = M R: the gradient of M, then of what M is made of.
        small = MixingGradients.of(torch.bmm(grad_maps, queries.mT), scale, mixing, weights, heads)
        grad_sums = small.weighted.div_(saved.totals)

        # Through the softmaxes: dQ = R * (dR - its mean weighted by R, per head); dK = E * (grad_sums^T X - delta),
        # delta the mean of the gradient of P weighted by P.
        logits = rows_apart(x, 2 * dim)
        grad_queries, grad_keys = logits[:, :dim], logits[:, dim:]
        torch.bmm(scaled(mixing.matrix, scale).mT, grad_maps, out=grad_queries).mul_(queries)
        grad_by_head, by_head = _heads_of(grad_queries, heads), _heads_of(queries, heads)
        grad_by_head.addcmul_(by_head, grad_by_head.sum(2, keepdim=True), value=-1)
        torch.bmm(grad_sums.mT, maps, out=grad_keys).sub_((grad_sums * mixing.weighted).sum(1).unsqueeze(2))
        grad_keys.mul_(keys)
        if temperature != 1.0:
            logits /= temperature

        grad_qkv = grad_qkv_bias = grad_x = None
        if needs_qkv:
            grad_qkv = torch.cat([torch.bmm(logits, maps.mT).sum(0), small.value])
        if needs_qkv_bias:
            grad_bias = grad_queries.sum((0, 2))
            grad_qkv_bias = torch.cat([grad_bias, torch.zeros_like(grad_bias), small.value_bias])
        if needs_x:
            weight = weights.qkv[: 2 * dim].expand(len(x), -1, -1)
            grad_x = in_order_of(x, grad if adds_x else None, weight.mT, logits)
            grad_x = grad_x.baddbmm_(keys.mT, grad_sums.mT)
        grad_residual = None if residual is None else grad
        return None, grad_x, grad_residual, small.scale, grad_qkv, grad_qkv_bias, small.proj, small.proj_bias


def forward_whole_map(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """`FoldedWholeMap` without what a backward needs."""
    saved, mixing = _attend(options, x, weights)
    return _mix(options, x, residual, saved, scaled(mixing.matrix, scale))


def is_safe(totals: Tensor) -> bool:
    """Sums of exponentials that prove that nothing overflowed and what vanished is below rounding."""
    low, high = torch.aminmax(totals)
    return low.item() > _SAFE[0] and high.item() < _SAFE[1]


def rows_apart(x: Tensor, rows: int) -> Tensor:
    """An empty [B, rows, N] for x [B, N, C]."""
    tokens = x.shape[1]
    apart = tokens + _LINE // x.element_size() if tokens * x.element_size() % _PAGE == 0 else tokens
    return x.new_empty(len(x), rows, apart).narrow(2, 0, tokens)


def in_order_of(x: Tensor, added: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """added + (left [B, C, D] right [B, D, N]), transposed, in the memory order of x [B, N, C]."""
    if x.stride(-1) == 1:
        return torch.bmm(right.mT, left.mT) if added is None else torch.baddbmm(added, right.mT, left.mT)
    out = torch.bmm(left, right) if added is None else torch.baddbmm(added.mT, left, right)
    return out.mT


def _attend(options: Options, x: Tensor, weights: Weights) -> tuple[Saved, Mixing]:
    """R [B, D, N] and all that it was made with."""
    dim = options.key_dim
    bias = None if weights.qkv_bias is None else weights.qkv_bias[: 2 * dim]
    exponentials, totals = _exponentials(options, x, weights.qkv[: 2 * dim], bias)
    totals = totals.unsqueeze(1)
    weighted = torch.bmm(x.mT, exponentials[:, dim:].mT).div_(totals)
    return Saved(exponentials, totals), Mixing.of(weighted, weights, options.heads)


def _exponentials(options: Options, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """weight x + bias as [B, rows, N], of which the first 2 D rows become R and E, and the row sums [B, D] of E."""
    heads, dim, temperature, _ = options
    weight, projected = weight.expand(len(x), -1, -1), rows_apart(x, len(weight))
    for subtract_maximum in (False, True):
        if bias is None:
            torch.bmm(weight, x.mT, out=projected)
        else:
            torch.baddbmm(bias[:, None], weight, x.mT, out=projected)
        logits = projected[:, : 2 * dim]
        queries, keys = logits[:, :dim], logits[:, dim:]
        if temperature != 1.0:
            logits /= temperature
        by_head = _heads_of(queries, heads)
        if subtract_maximum:
            by_head -= by_head.amax(2, keepdim=True)
            keys -= keys.amax(2, keepdim=True)
        logits.exp_()
        query_totals, totals = by_head.sum(2, keepdim=True), keys.sum(2)
        if is_safe(query_totals) and is_safe(totals):
            break
    by_head *= query_totals.reciprocal_()  # half the time of dividing the wide tensor
    return projected, totals


def _mix(options: Options, x: Tensor, residual: Tensor | None, saved: Saved, mixing: Tensor) -> Tensor:
    return in_order_of(x, x if options.adds_x else residual, mixing, saved.exponentials[:, : options.key_dim])


def _heads_of(rows: Tensor, heads: int) -> Tensor:
    """[B, heads * d, N] as the view [B, heads, d, N]."""
    return rows.view(len(rows), heads, -1, rows.shape[2])

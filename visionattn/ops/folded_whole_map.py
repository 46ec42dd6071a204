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

_SAFE = (1e-20, 1e20)
_PAGE, _LINE = 4096, 64  # bytes


class Options(NamedTuple):
    """What is not a tensor."""

    heads: int
    key_dim: int
    temperature: float
    adds_x: bool  # the residual is x itself, and the tensor `residual` None


class Weights(NamedTuple):
    """The layers' own tensors."""

    qkv: Tensor  # [2 D + E, C]: queries, keys, values
    qkv_bias: Tensor | None  # [2 D + E]
    proj: Tensor  # [C, E]
    proj_bias: Tensor | None  # [C]


class Saved(NamedTuple):
    """What the backward needs."""

    exponentials: Tensor  # [B, 2 D, N]: R, then E = exp(K - shift)
    totals: Tensor  # [B, 1, D], row sums of E
    weighted: Tensor  # [B, C, D], X P^T
    context: Tensor  # [B, heads, e, d], G
    mixing: Tensor  # [B, C, D], M without the scale


class FoldedWholeMap(torch.autograd.Function):
    """residual + scale * proj(efficient attention of qkv(x)) with its backward in closed form."""

    @staticmethod
    def forward(
        ctx: Any, options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, *weights: Tensor | None
    ) -> Tensor:
        layers = Weights(*weights)  # type: ignore[arg-type]  # only the biases may be None
        queries, saved = _attend(options, x, layers)
        ctx.options = options
        ctx.save_for_backward(x, residual, scale, *weights, *saved)
        return _mix(options, x, residual, queries, _scaled(saved.mixing, scale))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        heads, dim, temperature, adds_x = ctx.options
        x, residual, scale, *rest = ctx.saved_tensors
        weights, saved = Weights(*rest[:4]), Saved(*rest[4:])
        _, needs_x, _, _, needs_qkv, needs_qkv_bias, *_ = ctx.needs_input_grad
        maps, grad_maps = x.mT, grad.mT
        queries, keys = saved.exponentials[:, :dim], saved.exponentials[:, dim:]

        # y = M R: the gradient of M, then of what M is made of; small matrices, by head.
        grad_mixing, mixing, grad_scale = torch.bmm(grad_maps, queries.mT), saved.mixing, None
        if scale is not None:
            grad_scale = (grad_mixing * mixing).sum((0, 2))
            grad_mixing, mixing = _scaled(grad_mixing, scale), _scaled(mixing, scale)
        grad_proj_bias = None if weights.proj_bias is None else grad_mixing.sum((0, 2)) / heads
        grad_by_head = _by_head(grad_mixing, heads)
        grad_proj = (grad_by_head @ saved.context.mT).sum(0).transpose(0, 1).flatten(1)
        grad_context = _output_weight(weights, heads).mT @ grad_by_head
        grad_value = (grad_context @ _by_head(saved.weighted, heads).mT).sum(0).flatten(0, 1)
        grad_sums = _side_by_side(_value_weight(weights, heads, dim).mT @ grad_context).div_(saved.totals)

        # Through the softmaxes: dQ = R * (dR - its mean weighted by R, per head); dK = E * (grad_sums^T X - delta),
        # delta the mean of the gradient of P weighted by P.
        logits = rows_apart(x, 2 * dim)
        grad_queries, grad_keys = logits[:, :dim], logits[:, dim:]
        torch.bmm(mixing.mT, grad_maps, out=grad_queries).mul_(queries)
        grad_by_head, by_head = _heads_of(grad_queries, heads), _heads_of(queries, heads)
        grad_by_head.addcmul_(by_head, grad_by_head.sum(2, keepdim=True), value=-1)
        torch.bmm(grad_sums.mT, maps, out=grad_keys).sub_((grad_sums * saved.weighted).sum(1).unsqueeze(2))
        grad_keys.mul_(keys)
        if temperature != 1.0:
            logits /= temperature

        grad_qkv = grad_qkv_bias = grad_x = None
        if needs_qkv:
            grad_qkv = torch.cat([torch.bmm(logits, maps.mT).sum(0), grad_value])
        if needs_qkv_bias:
            grad_bias = grad_queries.sum((0, 2))
            grad_qkv_bias = torch.cat([grad_bias, torch.zeros_like(grad_bias), grad_context.sum((0, 3)).flatten()])
        if needs_x:
            weight = weights.qkv[: 2 * dim].expand(len(x), -1, -1)
            grad_x = in_order_of(x, grad if adds_x else None, weight.mT, logits)
            grad_x = grad_x.baddbmm_(keys.mT, grad_sums.mT)
        grad_residual = None if residual is None else grad
        return None, grad_x, grad_residual, grad_scale, grad_qkv, grad_qkv_bias, grad_proj, grad_proj_bias


def forward_whole_map(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> Tensor:
    """`FoldedWholeMap` without what a backward needs."""
    queries, saved = _attend(options, x, weights)
    return _mix(options, x, residual, queries, _scaled(saved.mixing, scale))


def mixing_of(weighted: Tensor, weights: Weights, heads: int) -> tuple[Tensor, Tensor]:
    """G [B, heads, e, d] and M [B, C, D] from X P^T [B, C, D]."""
    context = _value_weight(weights, heads, weighted.shape[2]) @ _by_head(weighted, heads)
    if weights.qkv_bias is not None:
        context += weights.qkv_bias[-weights.proj.shape[1] :].view(heads, -1, 1)
    return context, _mixing_of_context(context, weights)


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


def _attend(options: Options, x: Tensor, weights: Weights) -> tuple[Tensor, Saved]:
    """R [B, D, N] and all that it was made with."""
    dim = options.key_dim
    bias = None if weights.qkv_bias is None else weights.qkv_bias[: 2 * dim]
    exponentials, totals = _exponentials(options, x, weights.qkv[: 2 * dim], bias)
    queries, keys = exponentials[:, :dim], exponentials[:, dim:]
    totals = totals.unsqueeze(1)
    weighted = torch.bmm(x.mT, keys.mT).div_(totals)
    return queries, Saved(exponentials, totals, weighted, *mixing_of(weighted, weights, options.heads))


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


def _mixing_of_context(context: Tensor, weights: Weights) -> Tensor:
    """M [B, C, D] from the context [B, heads, e, d]."""
    heads = context.shape[1]
    mixing = _side_by_side(_output_weight(weights, heads) @ context)
    if weights.proj_bias is not None:
        mixing.add_(weights.proj_bias.unsqueeze(1), alpha=1 / heads)
    return mixing


def _mix(options: Options, x: Tensor, residual: Tensor | None, queries: Tensor, mixing: Tensor) -> Tensor:
    return in_order_of(x, x if options.adds_x else residual, mixing, queries)


def _scaled(matrices: Tensor, scale: Tensor | None) -> Tensor:
    return matrices if scale is None else matrices * scale[:, None]


def _value_weight(weights: Weights, heads: int, dim: int) -> Tensor:
    """[heads, e, C]."""
    return weights.qkv[2 * dim :].view(heads, -1, weights.qkv.shape[1])


def _output_weight(weights: Weights, heads: int) -> Tensor:
    """[heads, C, e]."""
    return weights.proj.view(len(weights.proj), heads, -1).transpose(0, 1)


def _heads_of(rows: Tensor, heads: int) -> Tensor:
    """[B, heads * d, N] as the view [B, heads, d, N]."""
    return rows.view(len(rows), heads, -1, rows.shape[2])


def _by_head(matrices: Tensor, heads: int) -> Tensor:
    """[B, C, heads * d] as the view [B, heads, C, d]."""
    return matrices.view(*matrices.shape[:2], heads, -1).transpose(1, 2)


def _side_by_side(by_head: Tensor) -> Tensor:
    """[B, heads, C, d] to [B, C, heads * d]."""
    return by_head.transpose(1, 2).flatten(2)

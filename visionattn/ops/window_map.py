"""Window attention of a whole map, projections included, walked over in groups of windows: exact, with less traffic.

A group's tokens are gathered, projected, attended and projected back before the next group's are touched, so that
queries, keys, values and logits stay in cache, forward and backward. Only tokens are projected: padding is a row of
the bias, put in where a window has any. A forward that no backward follows uses PyTorch's fused attention; on the CPU
that gives the bias no gradient, so that a forward with a backward keeps the attention weights.
Not valid when anything acts between the projections and the attention, or on the attention weights.

Letters: w windows of a group (in all its images), T positions of a window, n tokens of the group in one image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from visionattn.ops.window_groups import WindowGroup, walk


class Projections(NamedTuple):
    """The layers' own tensors."""

    qkv: Tensor  # [3 E, C]: queries, keys, values
    qkv_bias: Tensor | None  # [3 E]
    out: Tensor  # [C, E]
    out_bias: Tensor | None  # [C]


def window_attention_map(
    x: Tensor,
    relative: Tensor,
    projections: Projections,
    groups: Sequence[WindowGroup],
    residual: Tensor | None = None,
    biases: Sequence[Tensor] | None = None,
) -> Tensor:
    """residual + proj(window attention of qkv(x)), differentiable once.

    Args:
        x: [B, N, C].
        relative: [heads, T, T], added to the logits of every window.
        projections: queries, keys and values of one width E over all heads.
        groups: of windows; every token is in one of them.
        residual: [B, N, C]; nothing if None.
        biases: `group_biases` of the same groups, if there are any; read where no backward follows.
    Returns:
        [B, N, C].
    """
    leaves = (x, residual, relative, *projections)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves):
        return _WindowAttentionMap.apply(groups, *leaves)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    biases = group_biases(relative, groups) if biases is None else biases
    for images, number in walk(len(x), groups):
        group, bias = groups[number], biases[number]
        q, k, v = _projected(x[images], group, projections, heads=len(relative))
        if len(bias) > 1:
            bias = bias.repeat(len(q) // len(bias), 1, 1, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
        added = None if residual is None else residual[images]
        _put_projected(_rows(attended, group), projections, group, added, out[images])
    return out


def group_biases(relative: Tensor, groups: Sequence[WindowGroup]) -> list[Tensor]:
    """What each group adds to its logits, [1 or w, heads, T, T]."""
    return [
        relative[None] if group.hidden is None else _masked(relative.expand(group.windows, -1, -1, -1).clone(), group)
        for group in groups
    ]


class _WindowAttentionMap(torch.autograd.Function):
    """`window_attention_map` with its backward in closed form."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: Sequence[WindowGroup],
        x: Tensor,
        residual: Tensor | None,
        relative: Tensor,
        *projections: Tensor | None,
    ) -> Tensor:
        layers = Projections(*projections)  # type: ignore[arg-type]  # only the biases may be None
        heads = len(relative)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        kept = []
        for images, number in walk(len(x), groups):
            group = groups[number]
            # One copy: products of matrices want one batch axis, [3, w heads, T, d].
            qkv = _projected(x[images], group, layers, heads).contiguous().flatten(1, 2)
            q, k, v = qkv
            logits = relative.new_empty(len(q) // heads, *relative.shape).copy_(relative)
            weights = _masked(logits, group).flatten(0, 1)
            weights.baddbmm_(q, k.mT, alpha=q.shape[-1] ** -0.5)
            torch.softmax(weights, dim=-1, out=weights)
            attended = torch.unflatten(torch.bmm(weights, v), 0, (-1, heads)).transpose(1, 2).flatten(2)
            attended = _rows(attended, group)
            _put_projected(attended, layers, group, None if residual is None else residual[images], out[images])
            kept += [qkv, weights, attended]
        ctx.groups = groups
        ctx.save_for_backward(x, relative, *projections, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, relative, *rest = ctx.saved_tensors
        layers, kept = Projections(*rest[:4]), iter(rest[4:])
        _, needs_x, needs_residual, _, needs_qkv, needs_qkv_bias, needs_out, needs_out_bias = ctx.needs_input_grad
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_x else None
        grad_relative, grad_qkv, grad_out = (torch.zeros_like(t) for t in (relative, layers.qkv, layers.out))
        grad_qkv_bias = x.new_zeros(len(layers.qkv))
        heads = len(relative)
        scale = (layers.out.shape[1] // heads) ** -0.5
        for images, number in walk(len(x), ctx.groups):
            group = ctx.groups[number]
            (q, k, v), weights, attended = (next(kept) for _ in range(3))
            grad_rows = _taken(grad[images], group)
            if needs_out:
                grad_out.addmm_(grad_rows.mT, attended)
            grad_attended = torch.unflatten(_windows(grad_rows @ layers.out, group, None), -1, (heads, -1))
            grad_attended = grad_attended.transpose(1, 2).flatten(0, 1)  # [w heads, T, d]

            grad_logits = torch.bmm(grad_attended, v.mT)
            grad_logits = torch._softmax_backward_data(grad_logits, weights, -1, weights.dtype)
            grad_relative += torch.unflatten(grad_logits, 0, (-1, heads)).sum(0)
            grads = q.new_empty(3, *q.shape)
            torch.baddbmm(grads[0], grad_logits, k, beta=0, alpha=scale, out=grads[0])
            torch.baddbmm(grads[1], grad_logits.mT, q, beta=0, alpha=scale, out=grads[1])
            torch.bmm(weights.mT, grad_attended, out=grads[2])

            grad_windows = torch.unflatten(grads, 1, (-1, heads)).permute(1, 3, 0, 2, 4).flatten(2)  # [w, T, 3 E]
            grad_qkv_bias += grad_windows.sum((0, 1))  # what stands where there is padding is the bias as well
            grad_rows = _rows(grad_windows, group)
            if needs_qkv:
                grad_qkv.addmm_(grad_rows.mT, _taken(x[images], group))
            if grad_x is not None:
                _put(grad_rows @ layers.qkv, group, grad_x[images])
        return (
            None,
            grad_x,
            grad if needs_residual else None,
            grad_relative,
            grad_qkv if needs_qkv else None,
            grad_qkv_bias if needs_qkv_bias else None,
            grad_out if needs_out else None,
            grad.sum((0, 1)) if needs_out_bias else None,
        )


def _projected(x: Tensor, group: WindowGroup, layers: Projections, heads: int) -> Tensor:
    """q, k and v of a group's windows, [3, w, heads, T, d], as they come out of the projection."""
    rows = F.linear(_taken(x, group), layers.qkv, layers.qkv_bias)
    return torch.unflatten(_windows(rows, group, layers.qkv_bias), -1, (3, heads, -1)).permute(2, 0, 3, 1, 4)


def _masked(logits: Tensor, group: WindowGroup) -> Tensor:
    """logits [w, heads, T, T], in place: the lowest finite number for a hidden pair, so that none seen stays finite."""
    if group.hidden is not None:
        by_image = torch.unflatten(logits, 0, (-1, group.windows))
        by_image.masked_fill_(group.hidden[:, None], torch.finfo(logits.dtype).min)
    return logits


def _taken(x: Tensor, group: WindowGroup) -> Tensor:
    """The group's tokens of x [b, N, C], [b n, C]."""
    return x.index_select(1, group.tokens).flatten(0, 1)


def _put_projected(rows: Tensor, layers: Projections, group: WindowGroup, residual: Tensor | None, out: Tensor) -> None:
    """Attended rows [b n, E], projected and added to the residual [b, N, C], into out [b, N, C]."""
    if residual is None:
        projected = F.linear(rows, layers.out, layers.out_bias)
    else:
        projected = _taken(residual, group)
        if layers.out_bias is not None:
            projected += layers.out_bias
        projected.addmm_(rows, layers.out.mT)
    _put(projected, group, out)


def _put(rows: Tensor, group: WindowGroup, out: Tensor) -> None:
    """The inverse of `_taken`, into out [b, N, C]."""
    out.index_copy_(1, group.tokens, torch.unflatten(rows, 0, (len(out), -1)))


def _windows(rows: Tensor, group: WindowGroup, padding: Tensor | None) -> Tensor:
    """Rows of tokens [b n, E] at their positions, [w, T, E], with `padding` [E] where there is none (zeros if None)."""
    if group.places is not None and group.padding is not None:
        rows = torch.unflatten(rows, 0, (-1, len(group.tokens))).index_select(1, group.places)
        if padding is None:
            rows.index_fill_(1, group.padding, 0)
        else:
            rows.index_copy_(1, group.padding, padding.expand(len(rows), len(group.padding), -1))
        rows = rows.flatten(0, 1)
    return torch.unflatten(rows, 0, (-1, group.positions))


def _rows(windows: Tensor, group: WindowGroup) -> Tensor:
    """The inverse of `_windows`: [w, T, E] to [b n, E], without the padding."""
    if group.real is None:
        return windows.flatten(0, 1)
    return torch.unflatten(windows, 0, (-1, group.windows)).flatten(1, 2).index_select(1, group.real).flatten(0, 1)

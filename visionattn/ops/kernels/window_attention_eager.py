"""The truth of `visionattn::window_attention` in plain PyTorch, forward and backward.

Every sum runs in float32 at least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.kernels.window_case import WindowCase
from visionattn.ops.precision import at_least_float32, without_autocast
from visionattn.ops.window import (
    WindowLayout,
    hidden_pairs,
    merge,
    partition,
    relative_position_index,
    window_layout,
)

SHORTEST = 1e-12
"""What shorter rows are taken to be long before they are divided by their length, as in `F.normalize`."""


def forward(case: WindowCase) -> tuple[Tensor, Tensor]:
    """The answer and the log of its sums of exponentials."""
    qkv = case.qkv
    with without_autocast(qkv.device):
        layout = _layout(case)
        q, k, v = _windows(case, layout)
        if case.scale is not None:
            q, k = _unit(q), _unit(k)
        logits = _logits(q, k, case, layout)
        log_total = logits.logsumexp(-1, keepdim=True)
        log_total = log_total.masked_fill(log_total == -torch.inf, 0.0)
        answer = merge((logits - log_total).exp() @ v, layout).transpose(1, 2)
        answer = answer.to(qkv.dtype).contiguous().view(*qkv.shape[:3], *qkv.shape[4:])
        return answer, merge(log_total, layout)[..., 0].contiguous()


def backward(grad: Tensor, case: WindowCase, log_total: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of qkv, table, padding and scale."""
    qkv, table, padding, scale = case[:4]
    with without_autocast(qkv.device):
        layout = _layout(case)
        raw_q, raw_k, v = _windows(case, layout)
        q, k = (raw_q, raw_k) if scale is None else (_unit(raw_q), _unit(raw_k))
        logits = _logits(q, k, case, layout)
        nothing = log_total.new_full((log_total.shape[1], 1), torch.inf)  # padding asks for nothing: it weighs 0
        weights = (logits - partition(log_total[..., None], layout, nothing)).exp()

        grad_answer = partition(at_least_float32(grad).flatten(1, 2).transpose(1, 2), layout)
        grad_v = weights.mT @ grad_answer
        grad_weights = grad_answer @ v.mT
        grad_logits = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdim=True))
        grad_q, grad_k = grad_logits @ k, grad_logits.mT @ q
        grad_scale = empty_gradient(scale, qkv)
        if scale is None:
            grad_q, grad_k = (t * qkv.shape[-1] ** -0.5 for t in (grad_q, grad_k))
        else:
            grad_scale.copy_((q * grad_q).sum((0, 1, 3, 4)))
            by_head = at_least_float32(scale)[:, None, None]
            grad_q, grad_k = _through_unit(grad_q * by_head, raw_q), _through_unit(grad_k * by_head, raw_k)

        grad_table = empty_gradient(table, qkv)
        if table is not None:
            grad_table.copy_(summed_by_offset(grad_logits.sum((0, 1)), case.window))
        grad_padding = empty_gradient(padding, qkv)
        if padding is not None:
            held = (layout.tokens == math.prod(layout.grid))[:, None, :, None]
            grad_padding.copy_(torch.stack([(t * held).sum((0, 1, 3)) for t in (grad_k, grad_v)]))
        grads = torch.stack([merge(t, layout).transpose(1, 2) for t in (grad_q, grad_k, grad_v)], dim=2)
        return torch.empty_like(qkv).copy_(grads.view(qkv.shape)), grad_table, grad_padding, grad_scale


def empty_gradient(t: Tensor | None, qkv: Tensor) -> Tensor:
    """An uninitialised contiguous tensor like t, or without elements where there is none."""
    return qkv.new_empty(0) if t is None else t.new_empty(t.shape)


def summed_by_offset(grad: Tensor, window: Sequence[int]) -> Tensor:
    """[heads, T, T] (query, key) summed over each offset: [(2 h - 1) (2 w - 1), heads], always in the same order."""
    height, width = window
    by_axis = grad.view(-1, height, width, height, width).transpose(2, 3)  # [heads, y, y, x, x]
    by_axis = _summed_diagonals(by_axis)  # [heads, y, y, offsets]
    return _summed_diagonals(by_axis.movedim(3, 1)).movedim(2, 1).flatten(1).t()


def _summed_diagonals(t: Tensor) -> Tensor:
    """[.., m, m] (query, key) summed over each offset query - key: [.., 2 m - 1]."""
    length = t.shape[-1]
    # Each row one further to the right than the one above it: pairs of one offset stand in one column.
    rows = F.pad(t.flip(-1), (0, length)).flatten(-2)[..., :-length]
    return torch.unflatten(rows, -1, (length, 2 * length - 1)).sum(-2)


def _layout(case: WindowCase) -> WindowLayout:
    _, height, width, _, heads, _ = case.qkv.shape
    return window_layout(
        (height, width),
        tuple(case.window),
        tuple(case.shift),
        heads,
        shift_before_padding=case.shift_before_padding,
        device=case.qkv.device,
    )


def _windows(case: WindowCase, layout: WindowLayout) -> list[Tensor]:
    """q, k and v, [B, W, heads, T, D]."""
    rows = (None, None, None) if case.padding is None else (None, *case.padding)
    parts = at_least_float32(case.qkv).flatten(1, 2).transpose(1, 3).unbind(2)  # [B, heads, N, D]
    return [partition(part, layout, row) for part, row in zip(parts, rows, strict=True)]


def _logits(q: Tensor, k: Tensor, case: WindowCase, layout: WindowLayout) -> Tensor:
    """[B, W, heads, T, T], -inf for hidden pairs."""
    table, scale = case.table, case.scale
    logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else at_least_float32(scale)[:, None, None])
    if table is not None:
        index = relative_position_index(case.window).to(table.device)
        logits = logits + at_least_float32(table)[index].movedim(-1, 0)
    hidden = hidden_pairs(layout, case.mask, mask_padding=case.mask_padding)
    return logits if hidden is None else logits.masked_fill(hidden[:, :, None], -torch.inf)


def _unit(t: Tensor) -> Tensor:
    return F.normalize(t, dim=-1, eps=SHORTEST)


def _through_unit(grad: Tensor, t: Tensor) -> Tensor:
    """The gradient of t from that of `_unit(t)`."""
    unit = _unit(t)
    return (grad - unit * (unit * grad).sum(-1, keepdim=True)) / t.norm(dim=-1, keepdim=True).clamp(min=SHORTEST)

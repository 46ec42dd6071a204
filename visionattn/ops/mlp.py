"""The perceptron of a transformer block on a large map, walked over in chunks of tokens: exact, with less traffic.

The hidden activations are four times as wide as the map. Made and used up chunk by chunk they stay in cache, forward
and backward. Of them only those before the GELU are kept for the backward, which takes the GELU again.
Not valid when anything acts between the layers, such as dropout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CHUNK_BYTES = 768 * 2**10
"""Hidden activations of a chunk, per thread: a core's own cache holds them before and after the GELU (measured)."""

_FUSED_CHUNK_BYTES = 8 * 2**20
"""The same where oneDNN applies bias and GELU while it multiplies: then longer chunks are faster (measured)."""

_HAS_FUSED = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")  # type: ignore[no-untyped-call]


def gelu_mlp(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    residual: Tensor | None = None,
) -> Tensor:
    """residual + weight2 GELU(weight1 x + bias1) + bias2, with the exact GELU; differentiable once.

    Args:
        x: [..., C] of float32 or float64 on the CPU.
        weight1, bias1: [hidden, C], [hidden].
        weight2, bias2: [C', hidden], [C'].
        residual: [..., C']; nothing if None.
    Returns:
        [..., C'].
    """
    rows, added = x.flatten(0, -2), None if residual is None else residual.flatten(0, -2)
    leaves = (rows, added, weight1, bias1, weight2, bias2)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in leaves):
        out = _GeluMlp.apply(*leaves)
    else:
        out = x.new_empty(len(rows), len(weight2))
        fused = _fuses(x)
        for chunk in _chunks(rows, weight1, _FUSED_CHUNK_BYTES if fused else _CHUNK_BYTES):
            if fused:
                hidden = torch.ops.mkldnn._linear_pointwise(rows[chunk], weight1, bias1, "gelu", [], "none")
            else:
                hidden = F.gelu(F.linear(rows[chunk], weight1, bias1))
            _linear(hidden, weight2, bias2, None if added is None else added[chunk], out[chunk])
    return torch.unflatten(out, 0, x.shape[:-1])


class _GeluMlp(torch.autograd.Function):
    """`gelu_mlp` of x [N, C] with its backward in closed form."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight1: Tensor,
        bias1: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
    ) -> Tensor:
        hidden, out = x.new_empty(len(x), len(weight1)), x.new_empty(len(x), len(weight2))
        for chunk in _chunks(x, weight1, _CHUNK_BYTES):
            _linear(x[chunk], weight1, bias1, None, hidden[chunk])
            added = None if residual is None else residual[chunk]
            _linear(F.gelu(hidden[chunk]), weight2, bias2, added, out[chunk])
        ctx.save_for_backward(x, weight1, weight2, hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight1, weight2, hidden = ctx.saved_tensors
        needs_x, needs_residual, needs_weight1, needs_bias1, needs_weight2, needs_bias2 = ctx.needs_input_grad
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_x else None
        grad_weight1, grad_weight2 = torch.zeros_like(weight1), torch.zeros_like(weight2)
        grad_bias1 = x.new_zeros(len(weight1))
        for chunk in _chunks(x, weight1, _CHUNK_BYTES):
            before, grad_out = hidden[chunk], grad[chunk]
            if needs_weight2:
                grad_weight2.addmm_(grad_out.mT, F.gelu(before))
            grad_before = torch.ops.aten.gelu_backward(grad_out @ weight2, before)
            if needs_weight1:
                grad_weight1.addmm_(grad_before.mT, x[chunk])
            grad_bias1 += grad_before.sum(0)
            if grad_x is not None:
                torch.mm(grad_before, weight1, out=grad_x[chunk])
        return (
            grad_x,
            grad if needs_residual else None,
            grad_weight1 if needs_weight1 else None,
            grad_bias1 if needs_bias1 else None,
            grad_weight2 if needs_weight2 else None,
            grad.sum(0) if needs_bias2 else None,
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, out: Tensor) -> None:
    """residual + F.linear(x, weight, bias), into `out`."""
    if bias is None and residual is None:
        torch.mm(x, weight.mT, out=out)
    elif bias is None or residual is None:
        torch.addmm(residual if bias is None else bias, x, weight.mT, out=out)  # type: ignore[arg-type]
    else:
        torch.add(residual, bias, out=out).addmm_(x, weight.mT)


def _fuses(x: Tensor) -> bool:
    """oneDNN's linear layer with a GELU is at hand, which torch.compile puts there as well."""
    return x.dtype == torch.float32 and _HAS_FUSED and bool(torch.backends.mkldnn.enabled)


def _chunks(x: Tensor, weight1: Tensor, size: int) -> Iterator[slice]:
    """Slices of the rows of x [N, C] with `size` bytes of hidden activations per thread, but for the last."""
    step = max(1, size * torch.get_num_threads() // (len(weight1) * x.element_size()))
    for start in range(0, len(x), step):
        yield slice(start, start + step)

"""Backward walks of folded efficient attention over the tokens of one map; chunks as in `folded_passes`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visionattn.ops.folded_passes import in_cache, scratch_for, write


class QueryKeyGradients(NamedTuple):
    """Sums over tokens and images, added to in place."""

    query_weight: Tensor  # [D, C]
    query_bias: Tensor  # [D]
    key_weight: Tensor  # [C, D]


def mixing_gradient(grad: Tensor, queries: Tensor, length: int) -> Tensor:
    """The gradient [C, D] of M in y = M R: grad R^T.

    Args:
        grad: [C, N].
        queries: [D * N], R in chunks [D, n].
        length: of a chunk.
    """
    channels, tokens = grad.shape
    dim = queries.numel() // tokens
    total = grad.new_zeros(channels, dim)
    scratch = scratch_for(grad, length)
    for chunk, weights in zip(torch.split(grad, length, 1), torch.split(queries, dim * length), strict=True):
        total.addmm_(in_cache(chunk, scratch), weights.view(dim, -1).t())
    return total


def input_gradients(
    x: Tensor,
    grad: Tensor,
    queries: Tensor,
    exponentials: Tensor,
    *,
    query_weight: Tensor,
    key_weight: Tensor,
    mixing: Tensor,
    grad_sums: Tensor,
    delta: Tensor,
    heads: int,
    length: int,
    weights: QueryKeyGradients | None,
    out: Tensor | None,
    add_grad: bool,
) -> None:
    """Adds to the gradients of the query and key weights and writes that of x.

    Through the queries: dR = M^T grad, dQ = R * (dR - its mean weighted by R, per head). Through the keys, with the
    sums X E^T of unnormalised exponentials: dK = E * (grad_sums^T X - delta), and E weighs x itself as well.

    Args:
        x, grad: [C, N].
        queries, exponentials: [D * N], R and E in chunks [D, n] and [n, D].
        query_weight, key_weight: [D, C] and [C, D].
        mixing: [C, D].
        grad_sums: [C, D], gradient of X P^T divided by the row sums of E.
        delta: [D], the mean of the gradient of P weighted by P, divided likewise.
        heads: of the queries' softmax.
        length: of a chunk.
        weights: None if not wanted.
        out: [C, N], written; None if not wanted.
        add_grad: out gets grad as well (x was the residual).
    """
    dim = len(query_weight)
    x_scratch, grad_scratch = scratch_for(x, length), scratch_for(grad, length)
    out_scratch = None if out is None else scratch_for(out, length)
    query_buffer, key_buffer = x.new_empty(dim * length), x.new_empty(length, dim)
    walk = zip(
        torch.split(x, length, 1),
        torch.split(grad, length, 1),
        torch.split(x if out is None else out, length, 1),
        torch.split(queries, dim * length),
        torch.split(exponentials, dim * length),
        strict=True,
    )
    for x_chunk, grad_chunk, target, query_store, key_store in walk:
        x_chunk, grad_chunk = in_cache(x_chunk, x_scratch), in_cache(grad_chunk, grad_scratch)
        n = x_chunk.shape[1]
        grad_query = torch.mm(mixing.t(), grad_chunk, out=query_buffer[: dim * n].view(dim, n))
        _softmax_backward(grad_query, query_store.view(dim, n), heads)

        exponential = key_store.view(n, dim)
        grad_key = torch.mm(x_chunk.t(), grad_sums, out=key_buffer[:n])
        grad_key.sub_(delta).mul_(exponential)

        if weights is not None:
            weights.query_weight.addmm_(grad_query, x_chunk.t())
            weights.query_bias.add_(grad_query.sum(1))
            weights.key_weight.addmm_(x_chunk, grad_key)
        if out is not None:
            grad_x = target if out_scratch is None else out_scratch[:, :n]
            torch.mm(query_weight.t(), grad_query, out=grad_x)
            grad_x.addmm_(grad_sums, exponential.t()).addmm_(key_weight, grad_key.t())
            write(grad_x, grad_chunk if add_grad else None, target)


def _softmax_backward(grad: Tensor, soft: Tensor, heads: int) -> None:
    """Turns the gradient [D, n] of a softmax over each head's rows into that of its argument, in place."""
    by_head = grad.mul_(soft).view(heads, -1, grad.shape[1])
    by_head.addcmul_(soft.view(by_head.shape), by_head.sum(1, keepdim=True), value=-1)

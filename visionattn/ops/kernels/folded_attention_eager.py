"""The truth of `visionattn::folded_attention` in plain PyTorch, forward and backward.

Shapes are those of the op. Every sum runs in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.folded_mixing import Mixing, MixingGradients, Options, Weights, scaled
from visionattn.ops.kernels.memory_order import empty_tokens
from visionattn.ops.precision import at_least_float32, without_autocast


def forward(
    options: Options, x: Tensor, residual: Tensor | None, scale: Tensor | None, weights: Weights
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer, X P^T and the log of K's sums of exponentials."""
    added = x if options.adds_x else residual
    with without_autocast(x.device):
        tokens = at_least_float32(x)
        keys = _keys(options, tokens, weights)
        log_total = keys.logsumexp(1)
        weighted = (keys - log_total[:, None]).exp().mT @ tokens
        answer = _queries(options, tokens, weights) @ scaled_mixing(options, weighted, scale, weights)
        if added is not None:
            answer = answer + added
        return empty_tokens(x, (weights.qkv if added is None else added).dtype).copy_(answer), weighted, log_total


def backward(
    options: Options,
    grad: Tensor,
    x: Tensor,
    scale: Tensor | None,
    weights: Weights,
    weighted: Tensor,
    log_total: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, qkv and its bias, proj and its bias, scale."""
    heads, dim, temperature, adds_x = options
    with without_autocast(x.device):
        grad, tokens = at_least_float32(grad), at_least_float32(x)
        queries = _queries(options, tokens, weights)
        of_mixing = queries.mT @ grad
        small = gradients_of_mixing(options, of_mixing, scale, weights, weighted)
        of_weighted = small.weighted.mT
        of_queries = grad @ scaled_mixing(options, weighted, scale, weights).mT
        by_head, of_queries = (torch.unflatten(t, -1, (heads, -1)) for t in (queries, of_queries))
        of_queries = (by_head * (of_queries - (by_head * of_queries).sum(-1, keepdim=True))).flatten(-2) / temperature
        shares = (_keys(options, tokens, weights) - log_total[:, None]).exp()
        delta = (of_weighted * weighted).sum(-1)
        of_keys = shares * (tokens @ of_weighted.mT - delta[:, None]) / temperature
        query, key, _ = at_least_float32(weights.qkv).tensor_split([dim, 2 * dim])
        of_x = of_queries @ query + of_keys @ key + shares @ of_weighted
        if adds_x:
            of_x = of_x + grad
        rows = (of_queries.mT @ tokens).sum(0), (of_keys.mT @ tokens).sum(0)
        return as_the_weights(x, scale, weights, small, of_x, rows, of_queries.sum((0, 1)))


def scaled_mixing(options: Options, weighted: Tensor, scale: Tensor | None, weights: Weights) -> Tensor:
    """scale * M, transposed, [B, D, C], from X P^T [B, D, C]; in the dtype of the latter."""
    with without_autocast(weighted.device):
        mixing = Mixing.of(weighted.mT, _in_dtype_of(weighted, weights), options.heads)
        return scaled(mixing.matrix, None if scale is None else scale.to(weighted.dtype)).mT.contiguous()


def gradients_of_mixing(
    options: Options, grad: Tensor, scale: Tensor | None, weights: Weights, weighted: Tensor
) -> MixingGradients:
    """From the gradient of `scaled_mixing` [B, D, C]."""
    with without_autocast(weighted.device):
        weights = _in_dtype_of(weighted, weights)
        mixing = Mixing.of(weighted.mT, weights, options.heads)
        scale = None if scale is None else scale.to(weighted.dtype)
        return MixingGradients.of(grad.mT, scale, mixing, weights, options.heads)


def as_the_weights(
    x: Tensor,
    scale: Tensor | None,
    weights: Weights,
    small: MixingGradients,
    of_x: Tensor,
    rows: tuple[Tensor, Tensor],
    of_query_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients side by side, in the dtype of what they are of; an empty one of what is not there.

    Args:
        rows: the gradients of the queries' and of the keys' rows of qkv.
        of_query_bias: [D]. That of the keys is 0: it cancels in their softmax.
    """
    of_qkv_bias = torch.cat([of_query_bias, torch.zeros_like(of_query_bias), small.value_bias])
    return (
        of_x if of_x.dtype == x.dtype else empty_tokens(x, x.dtype).copy_(of_x),
        torch.cat([*rows, small.value]).to(weights.qkv.dtype),
        _like(weights.qkv_bias, of_qkv_bias, x),
        small.proj.to(weights.proj.dtype),
        _like(weights.proj_bias, small.proj_bias, x),
        _like(scale, small.scale, x),
    )


def _like(parameter: Tensor | None, grad: Tensor | None, x: Tensor) -> Tensor:
    if parameter is None or grad is None:
        return x.new_empty(0)
    return grad.to(parameter.dtype)


def _keys(options: Options, tokens: Tensor, weights: Weights) -> Tensor:
    """[B, N, D], without their bias, which cancels."""
    weight = at_least_float32(weights.qkv[options.key_dim : 2 * options.key_dim])
    return tokens @ weight.mT / options.temperature


def _queries(options: Options, tokens: Tensor, weights: Weights) -> Tensor:
    """R [B, N, D]."""
    queries = tokens @ at_least_float32(weights.qkv[: options.key_dim]).mT
    if weights.qkv_bias is not None:
        queries = queries + at_least_float32(weights.qkv_bias[: options.key_dim])
    by_head = torch.unflatten(queries / options.temperature, -1, (options.heads, -1))
    return by_head.softmax(-1).flatten(-2)


def _in_dtype_of(t: Tensor, weights: Weights) -> Weights:
    return Weights(*(None if w is None else w.to(t.dtype) for w in weights))  # type: ignore[arg-type]

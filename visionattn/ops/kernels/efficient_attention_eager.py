"""The truth of `visionattn::efficient_attention` in plain PyTorch, forward and backward.

Arguments are those of the ops. Every sum runs in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from visionattn.ops.kernels.memory_order import empty_answer
from visionattn.ops.precision import at_least_float32, without_autocast


def forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float, normalize_queries: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer, the context and the log of K's sums of exponentials."""
    with without_autocast(q.device):
        logits = _hidden(at_least_float32(k) / temperature, mask)
        log_total = logits.logsumexp(-2)
        log_total = log_total.masked_fill(log_total == -torch.inf, 0.0)
        context = (logits - log_total[:, :, None]).exp().mT @ at_least_float32(v)
        answer = _queries(q, temperature, normalize_queries) @ context
        return empty_answer(q, v).copy_(answer), context, log_total


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    context: Tensor,
    log_total: Tensor,
    temperature: float,
    normalize_queries: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    with without_autocast(q.device):
        grad, values = at_least_float32(grad), at_least_float32(v)
        queries = _queries(q, temperature, normalize_queries)
        weights = (_hidden(at_least_float32(k) / temperature, mask) - log_total[:, :, None]).exp()
        grad_context = queries.mT @ grad
        grad_queries = grad @ context.mT
        if normalize_queries:
            grad_queries = queries * (grad_queries - (queries * grad_queries).sum(-1, keepdim=True))
        delta = (grad_context * context).sum(-1)
        grad_keys = weights * (values @ grad_context.mT - delta[:, :, None])
        return (
            torch.empty_like(q).copy_(grad_queries / temperature),
            torch.empty_like(k).copy_(grad_keys / temperature),
            torch.empty_like(v).copy_(weights @ grad_context),
        )


def _queries(q: Tensor, temperature: float, normalize: bool) -> Tensor:
    q = at_least_float32(q) / temperature
    return q.softmax(-1) if normalize else q


def _hidden(logits: Tensor, mask: Tensor | None) -> Tensor:
    return logits if mask is None else logits.masked_fill(~mask[:, None, :, None], -torch.inf)

"""Run as a program under TRITON_INTERPRET=1: errors of the kernels against the eager twin and plain loops, as JSON.

Not a test by itself: Triton reads that variable when it is imported, and another test may have imported it before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from kernel_cases import ORDERS, different_strides, error, head_tensor, kernel_errors, key_mask
from strict_interpreter import print_errors
from torch import Tensor

from visionattn.ops.kernels import efficient_attention_eager as eager
from visionattn.ops.kernels.efficient_attention import efficient_attention_op


class Case(NamedTuple):
    tokens: int
    length: int
    width: int = 3
    values: int = 5
    heads: int = 2
    batch: int = 2
    order: str = "token by token"
    mask: str = "none"
    temperature: float = 1.0
    normalize: bool = True
    dtype: torch.dtype = torch.float32
    spread: float = 1.0


CASES = {
    "plain": (
        {
            "odd sizes": Case(37, 61, batch=1),
            "one token": Case(1, 1, batch=1),
            "cross, masked, tempered": Case(5, 40, mask="random", temperature=1.7, heads=1),
            "channels first": Case(35, 35, order="channels first", heads=1, batch=1),
            "no real key in one image": Case(4, 20, mask="one image without", heads=1),
            "queries as they are": Case(19, 7, normalize=False, heads=1),
            "wide values": Case(3, 3, width=18, values=130, heads=1, batch=1),
            "bfloat16": Case(33, 33, width=16, values=16, heads=1, dtype=torch.bfloat16),
            "float16": Case(33, 33, width=16, values=16, heads=1, dtype=torch.float16),
            "large logits": Case(20, 40, spread=40.0, heads=1, batch=1),
        }
    ),
    "slow": {
        f"{order}, {tokens} x {length}, {width} x {values}, {heads} heads, {mask}": Case(
            tokens, length, width, values, heads, 2, order, mask
        )
        for row, order in enumerate(ORDERS)
        for tokens, length in ((67, 67), (16, 131))
        for column, (width, values) in enumerate(((16, 16), (40, 24), (64, 64), (65, 200)))
        for heads, mask in (((1, "none"), (3, "random"), (3, "none"), (1, "random"))[(row + column + tokens) % 4],)
    },  # every two of them meet
}


def loops(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, temperature: float, normalize: bool) -> Tensor:
    """The equation, key by key and query by query, in float64."""
    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    for b in range(q.shape[0]):
        keys = [j for j in range(k.shape[2]) if mask is None or mask[b, j]]
        if not keys:
            continue
        for h in range(q.shape[1]):
            for d in range(q.shape[3]):
                exponentials = [math.exp(float(k[b, h, j, d] - k[b, h, keys, d].max()) / temperature) for j in keys]
                context = sum((w * v[b, h, j] for w, j in zip(exponentials, keys, strict=True)), v.new_zeros(()))
                for i in range(q.shape[2]):
                    logits = q[b, h, i] / temperature
                    weight = logits.softmax(0)[d] if normalize else logits[d]
                    out[b, h, i] += weight * context / sum(exponentials)
    return out


def measure(case: Case, *, with_loops: bool, device: str = "cpu") -> dict[str, float]:
    """Errors by name: of the kernels, and of the eager twin in the same dtype, against the twin in float64."""
    q = head_tensor(case, case.tokens, case.width, 1, device)
    k = head_tensor(case, case.length, case.width, 2, device)
    v = head_tensor(case, case.length, case.values, 3, device)
    grad = head_tensor(case._replace(spread=1.0), case.tokens, case.values, 4, device)
    options = key_mask(case.mask, case.batch, case.length, device), case.temperature, case.normalize
    found: dict[str, float] = {}

    exact = [t.double() for t in (q, k, v)]
    truth = eager.forward(*exact, *options)
    gradients = eager.backward(grad.double(), *exact, options[0], *truth[1:], *options[1:])
    if with_loops:
        found["twin against loops"] = error(truth[0], loops(*exact, *options))
        leaves = [t.clone().requires_grad_() for t in exact]
        by_autograd = torch.autograd.grad(eager.forward(*leaves, *options)[0], leaves, grad.double())
        for name, closed, expected in zip("qkv", gradients, by_autograd, strict=True):
            found[f"closed gradient of {name} against autograd"] = error(closed, expected)

    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    ours = efficient_attention_op(*leaves, *options)
    again = efficient_attention_op(*leaves, *options) if case.tokens > 36 else ours
    plain = eager.forward(q, k, v, *options)
    plain_gradients = eager.backward(grad, q, k, v, options[0], *plain[1:], *options[1:])
    mine = torch.autograd.grad(ours[0], leaves, grad)
    found |= kernel_errors(("answer", "context", "log total"), ours, plain, truth)
    found |= kernel_errors((f"gradient of {name}" for name in "qkv"), mine, plain_gradients, gradients)
    found["repeats differ by"] = max(float((a != b).sum()) for a, b in zip(ours, again, strict=True))
    found["strides differ by"] = different_strides((ours[0], *mine), (plain[0], *plain_gradients))
    return found


if __name__ == "__main__":
    print_errors(CASES, lambda case: measure(case, with_loops=case.length <= 61))

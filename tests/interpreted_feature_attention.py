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

from visionattn.ops.kernels import feature_attention_eager as eager
from visionattn.ops.kernels.feature_attention import feature_attention_op

NAMES = ("answer", "context", "total", "denominators", "largest key", "largest query")


class Case(NamedTuple):
    tokens: int
    length: int
    width: int = 3
    values: int = 5
    features: int = 0  # 0: elu + 1
    heads: int = 1
    batch: int = 2
    order: str = "token by token"
    mask: str = "none"
    dtype: torch.dtype = torch.float32
    spread: float = 1.0


CASES = {
    "plain": {
        "elu, odd sizes": Case(37, 33, heads=2, batch=1),
        "elu, one token": Case(1, 1, batch=1),
        "elu, cross, masked, channels first": Case(5, 40, mask="random", order="channels first", batch=1),
        "elu, float16": Case(33, 33, 16, 16, batch=1, dtype=torch.float16, spread=20.0),
        "favor, odd sizes": Case(37, 33, features=7, batch=1),
        "favor, one token": Case(1, 1, features=2, batch=1),
        "favor, several tiles of features, masked": Case(5, 40, 18, 5, features=70, mask="random", batch=1),
        "favor, no real key in one image": Case(4, 20, features=7, mask="one image without"),
        "favor, channels first, bfloat16": Case(
            20, 33, 16, 16, features=20, order="channels first", batch=1, dtype=torch.bfloat16
        ),
        "favor, float16": Case(33, 33, 16, 16, features=20, batch=1, dtype=torch.float16),
        "favor, large": Case(20, 40, features=7, spread=4.0, batch=1),
    },
    "slow": {
        f"{order}, {tokens} x {length}, {width} x {values}, {features} features, {mask}": Case(
            tokens, length, width, values, features, 2, 2, order, mask
        )
        for order in ORDERS
        for tokens, length in ((67, 67), (16, 131))
        for width, values, features in ((16, 16, 0), (40, 24, 0), (65, 100, 0), (16, 16, 44), (40, 24, 147))
        for mask in ("none", "random")
    },
}


def loops(q: Tensor, k: Tensor, v: Tensor, projection: Tensor | None, mask: Tensor | None) -> Tensor:
    """The published equations, query by query, in float64: with R^-1/2, and sums instead of means."""
    width = q.shape[-1]

    def features(x: Tensor, largest: float) -> Tensor:
        if projection is None:
            return torch.where(x > 0, x + 1, x.exp())
        x = x / width**0.25
        return ((projection @ x - x.square().sum() / 2 - largest).exp() + 1e-4) / math.sqrt(len(projection))

    def along(x: Tensor) -> float:
        return 0.0 if projection is None else (projection @ (x.detach() / width**0.25)).max().item()

    out = q.new_zeros(*q.shape[:3], v.shape[-1])
    for b in range(q.shape[0]):
        keys = [j for j in range(k.shape[2]) if mask is None or mask[b, j]]
        if not keys:
            continue
        for h in range(q.shape[1]):
            largest = max(along(k[b, h, j]) for j in keys)
            phi = torch.stack([features(k[b, h, j], largest) for j in keys])
            for i in range(q.shape[2]):
                weights = phi @ features(q[b, h, i], along(q[b, h, i]))
                total = weights.sum() + (1e-6 if projection is None else 0.0)
                out[b, h, i] = weights @ v[b, h, keys] / total
    return out


def measure(case: Case, *, with_loops: bool, device: str = "cpu") -> dict[str, float]:
    """Errors by name: of the kernels, and of the eager twin in the same dtype, against the twin in float64."""
    q = head_tensor(case, case.tokens, case.width, 1, device)
    k = head_tensor(case, case.length, case.width, 2, device)
    v = head_tensor(case, case.length, case.values, 3, device)
    grad = head_tensor(case._replace(spread=1.0), case.tokens, case.values, 4, device)
    generator = torch.Generator().manual_seed(5)
    projection = torch.randn(case.features, case.width, generator=generator).to(device) if case.features else None
    options = projection, key_mask(case.mask, case.batch, case.length, device)
    found: dict[str, float] = {}

    exact = [t.double() for t in (q, k, v)]
    exact_options = None if projection is None else projection.double(), options[1]
    truth = eager.forward(*exact, *exact_options)
    gradients = eager.backward(grad.double(), *exact, *exact_options, *truth)
    if with_loops:
        found["twin against loops"] = error(truth[0], loops(*exact, *exact_options))
        leaves = [t.clone().requires_grad_() for t in exact]
        by_autograd = torch.autograd.grad(loops(*leaves, *exact_options), leaves, grad.double())
        for name, closed, expected in zip("qkv", gradients, by_autograd, strict=True):
            found[f"closed gradient of {name} against loops"] = error(closed, expected)

    leaves = [t.detach().requires_grad_() for t in (q, k, v)]
    ours = feature_attention_op(*leaves, *options)
    again = feature_attention_op(*leaves, *options) if case.tokens > 36 else ours
    plain = eager.forward(q, k, v, *options)
    plain_gradients = eager.backward(grad, q, k, v, *options, *plain)
    mine = torch.autograd.grad(ours[0], leaves, grad)
    found |= kernel_errors(NAMES, ours, plain, truth)
    found |= kernel_errors((f"gradient of {name}" for name in "qkv"), mine, plain_gradients, gradients)
    found["repeats differ by"] = max(float((a != b).sum()) for a, b in zip(ours, again, strict=True))
    found["strides differ by"] = different_strides((ours[0], *mine), (plain[0], *plain_gradients))
    return found


if __name__ == "__main__":
    print_errors(CASES, lambda case: measure(case, with_loops=case.length <= 40))

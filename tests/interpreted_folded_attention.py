"""Run as a program under TRITON_INTERPRET=1: errors of the folded mixer's kernels against its twin, as JSON.

Not a test by itself: Triton reads that variable when it is imported, and another test may have imported it before.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from kernel_cases import error, kernel_errors, laid_out
from strict_interpreter import print_errors
from torch import Tensor

from visionattn.ops.folded_mixing import Options, Weights
from visionattn.ops.kernels import folded_attention_eager as eager
from visionattn.ops.kernels.dispatch import why_not_folded
from visionattn.ops.kernels.folded_attention import folded_attention_op

ORDERS = ("token by token", "channels first")


# Wide ones in half precision alone, as they are served.
SIZES = ((16, 12, 24, torch.float32), (40, 24, 36, torch.float32), (90, 60, 12, torch.bfloat16))


class Case(NamedTuple):
    tokens: int
    channels: int = 5
    key_dim: int = 4
    value_dim: int = 6
    heads: int = 2
    batch: int = 2
    order: str = "token by token"
    residual: str = "x"
    scaled: bool = False
    biases: bool = True
    temperature: float = 1.0
    dtype: torch.dtype = torch.float32
    wide_maps: bool = False  # x and another residual in float32, as under autocast
    spread: float = 1.0


CASES = {
    "plain": (
        {
            "odd sizes": Case(75, scaled=True),
            "one token, large logits": Case(1, spread=300.0, batch=1),
            "heads that pad": Case(19, key_dim=9, value_dim=3, heads=3, batch=1, temperature=1.7),
            "channels first, another residual": Case(35, order="channels first", residual="another", heads=1, batch=1),
            "no residual, no biases": Case(33, residual="none", biases=False, batch=1),
            "more channels than rows": Case(18, channels=40, key_dim=18, value_dim=4, heads=1, batch=1, scaled=True),
            "bfloat16": Case(33, channels=16, key_dim=16, value_dim=16, dtype=torch.bfloat16, batch=1),
            "float16": Case(33, channels=16, key_dim=16, value_dim=16, dtype=torch.float16, batch=1),
            "wide maps, narrow weights": Case(20, scaled=True, dtype=torch.bfloat16, wide_maps=True, batch=1),
            "wide maps, no residual": Case(20, residual="none", dtype=torch.float16, wide_maps=True, batch=1),
            "large logits": Case(20, spread=30.0, batch=1),
        }
    ),
    "slow": (
        {
            f"{order}, {tokens} of {channels}, keys {keys}, values {values}, {heads} heads, residual {residual}": Case(
                tokens, channels, keys, values, heads, 2, order, residual, scaled, dtype=dtype
            )
            for order in ORDERS
            for tokens in (67, 131)
            for channels, keys, values, dtype in SIZES
            for heads in (1, 3, 12)
            for residual, scaled in (("x", False), ("another", True))
        }
    ),
}


class Given(NamedTuple):
    x: Tensor
    residual: Tensor | None
    scale: Tensor | None
    qkv: Tensor
    qkv_bias: Tensor | None
    proj: Tensor
    proj_bias: Tensor | None


def given(case: Case, device: str) -> Given:
    """Of the case's dtype; the scale in float32."""
    dtype = torch.float32 if case.wide_maps else case.dtype

    def drawn(*shape: int, seed: int, wide: bool = False) -> Tensor:
        t = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / math.sqrt(shape[-1])
        return t.to(device, torch.float32 if wide else case.dtype)

    def tokens(seed: int, spread: float) -> Tensor:
        size = case.batch, 1, case.tokens, case.channels
        return laid_out(case.order, *size, dtype=dtype, spread=spread, seed=seed, device=device)[:, 0]

    rows = 2 * case.key_dim + case.value_dim
    return Given(
        tokens(1, case.spread),
        tokens(2, 1.0) if case.residual == "another" else None,
        drawn(case.channels, seed=3, wide=True) if case.scaled else None,
        drawn(rows, case.channels, seed=4),
        drawn(rows, seed=5) if case.biases else None,
        drawn(case.channels, case.value_dim, seed=6),
        drawn(case.channels, seed=7) if case.biases else None,
    )


def unfolded(case: Case, given: Given) -> Tensor:
    """The mixer's own steps, values and attended values and all, image by image and head by head."""
    out = []
    for b, x in enumerate(given.x):
        projected = x @ given.qkv.mT + (0 if given.qkv_bias is None else given.qkv_bias)
        widths = [case.key_dim, case.key_dim, case.value_dim]
        attended = []
        for q, k, v in zip(*(t.chunk(case.heads, -1) for t in projected.split(widths, -1)), strict=True):
            context = (k / case.temperature).softmax(0).mT @ v
            attended.append((q / case.temperature).softmax(-1) @ context)
        y = torch.cat(attended, -1) @ given.proj.mT + (0 if given.proj_bias is None else given.proj_bias)
        y = y if given.scale is None else y * given.scale
        added = {"x": x, "none": 0, "another": None if given.residual is None else given.residual[b]}[case.residual]
        out.append(y + added)
    return torch.stack(out)


def measure(case: Case, *, with_loops: bool, device: str = "cpu") -> dict[str, float]:
    """Errors by name: of the kernels, and of the eager twin in the same dtype, against the mixer in float64."""
    inputs = given(case, device)
    there = [name for name, t in zip(Given._fields, inputs, strict=True) if t is not None]
    options = Options(case.heads, case.key_dim, case.temperature, case.residual == "x")

    exact = Given(*(None if t is None else t.double().detach().requires_grad_() for t in inputs))
    truth = unfolded(case, exact)
    grad = torch.randn(truth.shape, generator=torch.Generator().manual_seed(8)).to(device)
    leaves = [t for t in exact if t is not None]
    gradients = dict(zip(there, torch.autograd.grad(truth, leaves, grad.double()), strict=True))

    def twin(of: Given) -> tuple[Tensor, dict[str, Tensor]]:
        weights = Weights(*of[3:])
        answer, weighted, log_total = eager.forward(options, of.x, of.residual, of.scale, weights)
        back = eager.backward(options, grad.to(answer.dtype), of.x, of.scale, weights, weighted, log_total)
        names = ("x", "qkv", "qkv_bias", "proj", "proj_bias", "scale")
        return answer, {name: t for name, t in zip(names, back, strict=True) if name in there}

    found: dict[str, float] = {}
    folded, folded_gradients = twin(Given(*(None if t is None else t.detach() for t in exact)))
    if with_loops:
        found["twin against the mixer's steps"] = error(folded, truth.detach())
        for name, ours in folded_gradients.items():
            found[f"closed gradient of {name} against autograd"] = error(ours, gradients[name])

    learned = Given(*(None if t is None else t.detach().requires_grad_() for t in inputs))
    ours, *_ = folded_attention_op(*learned, *options)
    again, *_ = folded_attention_op(*learned, *options)
    plain, plain_gradients = twin(inputs)
    refusal = why_not_folded(inputs[:3], inputs[3:], case.key_dim, case.heads)
    found["refused by the kernels"] = float(refusal is not None)
    found["repeats differ by"] = float((ours != again).sum())
    found["strides differ by"] = float(ours.stride() != plain.stride())
    found["dtypes differ by"] = float(ours.dtype != plain.dtype)
    answers = ours, plain, truth.detach()
    leaves = [t for t in learned if t is not None]
    of = torch.autograd.grad(ours, leaves, grad.to(ours.dtype))
    with torch.autocast(device, torch.bfloat16):
        lowered, *_ = folded_attention_op(*learned, *options)
        of_lowered = torch.autograd.grad(lowered, leaves, grad.to(lowered.dtype))
    pairs = zip((ours, *of), (lowered, *of_lowered), strict=True)
    found["under autocast differ by"] = max(float((a != b).sum()) for a, b in pairs)
    mine = dict(zip(there, of, strict=True))
    names = [f"gradient of {name}" for name in plain_gradients]
    by_name = ([of[name] for name in plain_gradients] for of in (mine, plain_gradients, gradients))
    found |= kernel_errors(["answer", *names], *([first, *rest] for first, rest in zip(answers, by_name, strict=True)))
    return found


if __name__ == "__main__":
    print_errors(CASES, lambda case: measure(case, with_loops=True))

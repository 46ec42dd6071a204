"""Linear attention: plain loops over the equation, golden vectors of idiap's fast-transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, tensor
from torch import Tensor

from visionattn.attention.linear import LinearAttention
from visionattn.ops.causal_attention import causal_linear_attention
from visionattn.ops.feature_attention import linear_attention

DIM = 6


def phi(x: Tensor) -> Tensor:
    """elu(x) + 1, number by number."""
    return torch.stack([number + 1 if number > 0 else number.exp() for number in x])


def naive_attention(
    mixer: LinearAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Every pair of tokens has a weight; padded keys are not even read."""
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    widths = [mixer.key_dim, mixer.key_dim, mixer.value_dim]
    rows = []
    for item in range(len(x)):
        keys = [
            linear(parameters, "qkv", source[item][place]).split(widths)
            for place in positions(tuple(source.shape[1:-1]))
            if source_mask is None or source_mask[item][place]
        ]
        for place in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "qkv", x[item][place]).split(widths)[0].chunk(mixer.num_heads)
            heads = []
            for head in range(mixer.num_heads):
                weights = [phi(query[head]) @ phi(key.chunk(mixer.num_heads)[head]) for _, key, _ in keys]
                values = [value.chunk(mixer.num_heads)[head] for _, _, value in keys]
                summed = sum(weight * value for weight, value in zip(weights, values, strict=True))
                heads.append(summed / (sum(weights) + 1e-6))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: LinearAttention, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("grid", [(7,), (3, 4), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("options", [{"num_heads": 1}, {"num_heads": 2, "key_dim": 4, "value_dim": 8}], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    check(randomised(LinearAttention(DIM, **options)), x=tensor(2, *grid, DIM))


def test_masked_and_cross_equal_loops() -> None:
    mixer = randomised(LinearAttention(DIM, num_heads=2))
    x, context = tensor(2, 3, 3, DIM), tensor(2, 2, 4, DIM, seed=1)
    check(mixer, x=x, mask=random_mask(2, 3, 3))
    check(mixer, x=x, context=context, context_mask=random_mask(2, 2, 4, seed=2))


@pytest.mark.parametrize("case", golden("attention", "linear_transformer"))
def test_golden(case: Golden) -> None:
    inputs = case.leaves("in")
    q, k, v = (inputs[name].transpose(1, 2) for name in "qkv")
    lengths = case.group("buffer").get("key_lengths")
    mask = None if lengths is None else torch.arange(k.shape[2]) < lengths[:, None]
    if case.row["cls"] == "CausalLinearAttention":
        out = causal_linear_attention(q, k, v)
    else:
        out = linear_attention(q, k, v, mask)
    assert_golden(case, out.transpose(1, 2), inputs, {}, tol=1e-10)

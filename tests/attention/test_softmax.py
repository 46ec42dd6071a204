"""Softmax attention against plain loops, golden vectors and timm's Attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.softmax import SoftmaxAttention

DIM = 6
GRIDS = ((7,), (3, 5), (2, 3, 2))
CONTEXT_GRIDS = {1: (5,), 2: (4, 2), 3: (2, 2, 3)}

every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def naive_softmax_attention(
    mixer: SoftmaxAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    head_dim, value_head_dim = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads
    rows = []
    for item in range(len(x)):
        keys = [
            linear(parameters, "qkv", source[item][place])[mixer.key_dim :]
            for place in positions(tuple(source.shape[1:-1]))
            if source_mask is None or source_mask[item][place]
        ]
        for place in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "qkv", x[item][place])
            heads = []
            for head in range(mixer.num_heads):
                channels = slice(head * head_dim, (head + 1) * head_dim)
                of_value = mixer.key_dim + head * value_head_dim
                weights = softmax([query[channels] @ key[channels] / head_dim**0.5 for key in keys])
                values = [key[of_value : of_value + value_head_dim] for key in keys]
                heads.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: SoftmaxAttention, **inputs: Tensor | None) -> None:
    def naive(parameters: Parameters, **kwargs: Tensor | None) -> Tensor:
        return naive_softmax_attention(mixer, parameters, **kwargs)

    assert_equals_naive(mixer, naive, inputs)


@every_grid
@pytest.mark.parametrize(
    "options",
    [{"num_heads": 1}, {"num_heads": 2, "qkv_bias": False}, {"num_heads": 2, "key_dim": 4, "value_dim": 8}],
    ids=str,
)
def test_self_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(SoftmaxAttention(DIM, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid))


@every_grid
def test_cross_equals_loops(grid: tuple[int, ...]) -> None:
    mixer, other = randomised(SoftmaxAttention(DIM, num_heads=3)), CONTEXT_GRIDS[len(grid)]
    x, context = tensor(2, *grid, DIM), tensor(2, *other, DIM, seed=1)
    check(mixer, x=x, context=context)
    check(mixer, x=x, context=context, context_mask=random_mask(2, *other, seed=2))


@pytest.mark.parametrize("case", golden("attention", "hosseini", lambda row: "SDPA" in row["args"]))
def test_golden(case: Golden) -> None:
    heads, dim, key_head_dim, value_head_dim = case.args[:4]
    mixer = SoftmaxAttention(dim, num_heads=heads, key_dim=heads * key_head_dim, value_dim=heads * value_head_dim)
    inputs, params = case.leaves("in"), case.leaves("param")
    state = {}
    for key in ("weight", "bias"):
        pieces = [params[f"layers.Attention_Layer {h}.W_{part}.{key}"] for part in "qkv" for h in range(heads)]
        state[f"qkv.{key}"] = torch.cat(pieces)
        state[f"proj.{key}"] = params[f"W_o.{key}"]
    assert_golden(case, functional_call(mixer, state, (inputs["x"],), strict=True), inputs, params, tol=1e-10)


@pytest.mark.parametrize("qkv_bias", [False, True])
def test_equals_timm_with_its_own_state_dict(qkv_bias: bool) -> None:
    from timm.layers import Attention

    theirs = randomised(Attention(24, num_heads=3, qkv_bias=qkv_bias)).eval()
    ours = SoftmaxAttention(24, num_heads=3, qkv_bias=qkv_bias).double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = tensor(2, 5, 7, 24)
    torch.testing.assert_close(ours(x).flatten(1, 2), theirs(x.flatten(1, 2)), rtol=1e-12, atol=1e-12)


def test_dropout_of_the_weights_is_for_training_only() -> None:
    mixer, x = randomised(SoftmaxAttention(DIM, num_heads=2, attn_drop=0.5)), tensor(2, 3, 5, DIM)
    without = SoftmaxAttention(DIM, num_heads=2).double()
    without.load_state_dict(mixer.state_dict())
    assert torch.equal(mixer.eval()(x), without(x))
    assert not torch.allclose(mixer.train()(x), without(x))


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        SoftmaxAttention(DIM, num_heads=4)
    with pytest.raises(ValueError, match=r"attn_drop=-0\.1 is no probability; use a number from 0 to 1"):
        SoftmaxAttention(DIM, num_heads=2, attn_drop=-0.1)

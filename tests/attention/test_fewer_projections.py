"""Attention with fewer projections: loops over the paper's equations, golden vectors with the softmax over keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.fewer_projections import (
    EfficientProjectionAttention,
    OptimisedAttention,
    RawValueAttention,
    SuperAttention,
)
from visionattn.attention.softmax import SoftmaxAttention
from visionattn.ops.token_mixing import resized_token_mixing

DIM = 6
FORMS = (OptimisedAttention, EfficientProjectionAttention, SuperAttention)
every_form = pytest.mark.parametrize("form", FORMS)


def naive_attention(
    mixer: RawValueAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    width, rows = DIM // mixer.num_heads, []
    for item in range(len(x)):
        places = [p for p in positions(tuple(source.shape[1:-1])) if source_mask is None or source_mask[item][p]]
        projected = [linear(parameters, "query_key", source[item][p]) for p in places]
        keys = [t[DIM:] if len(t) > DIM else source[item][p] for t, p in zip(projected, places, strict=True)]
        values = [source[item][p] for p in places]
        if "mixing" in parameters:
            mixed = []
            for p in places:
                value = sum(parameters["mixing"][(*p, *other)] * source[item][other] for other in places)
                mixed.append(value + parameters["mixing_bias"][p] if "mixing_bias" in parameters else value)
            values = mixed
        for place in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "query_key", x[item][place])[:DIM]
            heads = []
            for head in range(mixer.num_heads):
                part = slice(head * width, (head + 1) * width)
                weights = softmax([query[part] @ key[part] / math.sqrt(width) for key in keys])
                heads.append(sum(w * value[part] for w, value in zip(weights, values, strict=True)))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: RawValueAttention, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)


@every_form
@pytest.mark.parametrize("grid", [(5,), (3, 2), (2, 1, 3)], ids=str)
def test_equals_loops(form: type[RawValueAttention], grid: tuple[int, ...]) -> None:
    check(randomised(form(DIM, grid, num_heads=2)), x=tensor(2, *grid, DIM))


@every_form
def test_masked_and_cross_equal_loops(form: type[RawValueAttention]) -> None:
    options = {"mixing_bias": True} if form is SuperAttention else {}
    mixer = randomised(form(DIM, (3, 3), num_heads=3, **options))
    x, context = tensor(2, 3, 3, DIM), tensor(2, 3, 3, DIM, seed=1)
    check(mixer, x=x, mask=random_mask(2, 3, 3))
    check(mixer, x=x, context=context, context_mask=random_mask(2, 3, 3, seed=2))


def test_weights_saved_are_those_of_the_paper() -> None:
    def weights(mixer: torch.nn.Module) -> int:
        return sum(p.numel() for name, p in mixer.named_parameters() if name.endswith("weight"))

    full = weights(SoftmaxAttention(64))
    assert weights(OptimisedAttention(64)) == full * 3 // 4
    assert weights(EfficientProjectionAttention(64)) == full // 2


def test_mixing_keeps_what_a_row_sums_to_at_another_resolution() -> None:
    """A constant matrix stays an average over all positions."""
    mixing = torch.full((3, 4, 3, 4), 1 / 12, dtype=torch.float64)
    resized, _ = resized_token_mixing(mixing, (5, 7))
    torch.testing.assert_close(resized, torch.full((35, 35), 1 / 35, dtype=torch.float64))


def test_mixing_of_another_length_is_interpolated_on_both_sides() -> None:
    mixing = tensor(4, 4)
    resized, _ = resized_token_mixing(mixing, (7,))
    places = (np.arange(7) + 0.5) * 4 / 7 - 0.5
    wide = np.stack([np.interp(places, np.arange(4), row) for row in mixing.numpy()])
    expected = np.stack([np.interp(places, np.arange(4), column) for column in wide.T], axis=1) * 4 / 7
    np.testing.assert_allclose(resized.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", golden("attention", "hosseini", lambda row: row["args"][-1] != "SDPA"))
def test_golden(case: Golden) -> None:
    heads, dim, _, _, tokens, name = case.args
    form = {"Optimised": OptimisedAttention, "Efficient": EfficientProjectionAttention, "Super": SuperAttention}[name]
    inputs, params = case.leaves("in"), case.leaves("param")

    def joined(layer: str, key: str) -> Tensor:
        return torch.cat([params[f"layers.Attention_Layer {head}.{layer}.{key}"] for head in range(heads)])

    state = {}
    for key in ("weight", "bias"):
        state[f"query_key.{key}"] = joined("W_q", key)
        if form is OptimisedAttention:
            state[f"query_key.{key}"] = torch.cat([joined("W_q", key), joined("W_k", key)])
        state[f"proj.{key}"] = params[f"W_o.{key}"]
    if form is SuperAttention:  # the reference mixes positions head by head, ours for all heads alike
        mixer = form(dim, (tokens,), num_heads=heads, mixing_bias=True)
        alone = {"proj.weight": torch.eye(dim, dtype=torch.float64), "proj.bias": torch.zeros(dim, dtype=torch.float64)}
        attended = []
        for head in range(heads):
            mixing = {key: params[f"layers.Attention_Layer {head}.W_a.{key}"] for key in ("weight", "bias")}
            names = {"mixing": mixing["weight"], "mixing_bias": mixing["bias"]}
            of_all = functional_call(mixer, state | alone | names, (inputs["x"],), strict=True)
            attended.append(of_all.chunk(heads, dim=-1)[head])
        out = F.linear(torch.cat(attended, dim=-1), state["proj.weight"], state["proj.bias"])
    else:
        out = functional_call(form(dim, num_heads=heads), state, (inputs["x"],), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="SuperAttention mixes all positions of a grid: give it one"):
        SuperAttention(DIM, num_heads=2)
    with pytest.raises(ValueError, match="num_heads=4 does not divide dim=6; use 1, 2, 3 or 6"):
        OptimisedAttention(DIM, num_heads=4)

"""Linformer: loops over the paper's equation, golden vectors of lucidrains; its pooled form with cells by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.linformer import Linformer, LinformerPool

DIM = 6
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_heads": 1},
    {"num_heads": 2, "headwise": True},
    {"num_heads": 2, "share_kv": True, "key_dim": 4},
    {"num_heads": 3, "one_kv_head": True},
)


def naive_attention(
    mixer: Linformer | LinformerPool,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    grid, rows = tuple(source.shape[1:-1]), []
    key_width, value_width = mixer.key_dim // mixer.num_heads, mixer.value_dim // mixer.num_heads
    for item in range(len(x)):
        places = [p for p in positions(grid) if source_mask is None or source_mask[item][p]]
        projected = {p: linear(parameters, "qkv", source[item][p])[mixer.key_dim :] for p in places}
        for place in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "qkv", x[item][place])[: mixer.key_dim]
            heads = []
            for head in range(mixer.num_heads):
                one = getattr(mixer, "one_kv_head", False)
                first = 0 if one else head * key_width
                k = {p: t[first : first + key_width] for p, t in projected.items()}
                first = key_width if one else mixer.key_dim + head * value_width
                v = {p: t[first : first + value_width] for p, t in projected.items()}
                keys, values = summed(mixer, parameters, head, grid, k), summed(mixer, parameters, head, grid, v, True)
                q = query[head * key_width : (head + 1) * key_width]
                weights = softmax([q @ key / math.sqrt(key_width) for key in keys])
                heads.append(sum(w * value for w, value in zip(weights, values, strict=True)))
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def summed(
    mixer: Linformer | LinformerPool,
    parameters: Parameters,
    head: int,
    grid: tuple[int, ...],
    tokens: dict[tuple[int, ...], Tensor],
    of_values: bool = False,
) -> list[Tensor]:
    """The few keys or values of one head."""
    if isinstance(mixer, Linformer):
        name = "value_projection" if of_values and "value_projection" in parameters else "key_projection"
        weights = parameters[name]
        weights = weights[head if len(weights) > 1 else 0]
        return [sum(row[p] * token for p, token in tokens.items()) for row in weights]
    cells = []
    for cell in positions(tuple(min(mixer.pool, n) for n in grid)):
        inside = []
        for p, token in tokens.items():
            bounds = []
            for number, extent in zip(cell, grid, strict=True):
                count = min(mixer.pool, extent)
                bounds.append((number * extent // count, -(-(number + 1) * extent // count)))
            if all(low <= i < high for i, (low, high) in zip(p, bounds, strict=True)):
                inside.append(token)
        if inside:
            cells.append(sum(inside) / len(inside))
    return cells


def check(mixer: Linformer | LinformerPool, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(5,), (3, 2)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(Linformer(DIM, grid, rank=3, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid))
    check(mixer, x=tensor(2, *grid, DIM), context=tensor(2, *grid, DIM, seed=3), context_mask=random_mask(2, *grid))


@pytest.mark.parametrize("grid", [(7,), (5, 3), (2, 3, 3)], ids=str)
def test_pooled_equals_loops(grid: tuple[int, ...]) -> None:
    mixer = randomised(LinformerPool(DIM, num_heads=2, pool=2, value_dim=4))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid, seed=1))


def test_at_another_resolution_a_constant_projection_sums_to_as_much() -> None:
    mixer = Linformer(DIM, (4, 4), num_heads=1, rank=2).double()
    torch.nn.init.constant_(mixer.key_projection, 1 / 16)
    assert mixer.value_projection is not None
    torch.nn.init.constant_(mixer.value_projection, 1 / 16)
    v = tensor(1, 1, 35, 3)
    out = mixer.attend(tensor(1, 1, 35, 6, seed=1), tensor(1, 1, 35, 6, seed=2), v, (5, 7), (5, 7))
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(out))


@pytest.mark.parametrize("case", golden("attention", "linformer"))
def test_golden(case: Golden) -> None:
    sizes = {"k": 256, "heads": 8} | dict(zip(("dim", "seq_len"), case.args, strict=False)) | case.kwargs
    heads, share = sizes["heads"], sizes.get("share_kv", False)
    inputs, params = case.leaves("in"), case.leaves("param")
    context = inputs.get("context")
    keys = (inputs["x"] if context is None else context).shape[1]  # fewer than all: the reference cuts E and F
    to_v = params["to_k.weight"] if share else params["to_v.weight"]
    state = {
        "qkv.weight": torch.cat([params["to_q.weight"], params["to_k.weight"], to_v]),
        "proj.weight": params["to_out.weight"],
        "proj.bias": params["to_out.bias"],
        "key_projection": params["proj_k"][:keys].mT[None],
    }
    if not share:
        state["value_projection"] = params["proj_v"][:keys].mT[None]
    mixer = Linformer(
        sizes["dim"],
        (keys,),
        num_heads=heads,
        rank=sizes["k"],
        share_kv=share,
        one_kv_head=sizes.get("one_kv_head", False),
        qkv_bias=False,
    )
    out = functional_call(mixer, state, (inputs["x"], context), strict=True)
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="Linformer learns a weight for every position: give it a grid"):
        Linformer(DIM, num_heads=2)
    with pytest.raises(ValueError, match="rank=0 must be 1 or more"):
        Linformer(DIM, (4,), num_heads=2, rank=0)
    with pytest.raises(ValueError, match="pool=0 must be 1 or more"):
        LinformerPool(DIM, num_heads=2, pool=0)

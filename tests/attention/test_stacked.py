"""Stacked attention: the paper's equations in loops, golden vectors derived from them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.stacked import AttentionHop, StackedAttention

DIM = 6
OPTIONS: tuple[dict[str, Any], ...] = ({}, {"hops": 1, "hidden_dim": 3}, {"hops": 3, "hidden_dim": 8})


def naive_mixer(
    mixer: StackedAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    """Every hop and position in turn; padded positions are not even read."""
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    answers = []
    for item in range(len(x)):
        own = [x[item][p] for p in positions(tuple(x.shape[1:-1])) if mask is None or mask[item][p]]
        grid = tuple(source.shape[1:-1])
        seen = [source[item][p] for p in positions(grid) if source_mask is None or source_mask[item][p]]
        u = sum(own) / len(own)
        for hop in range(len(mixer.hops)):
            asked = linear(parameters, f"hops.{hop}.query", u)
            hidden = [torch.tanh(linear(parameters, f"hops.{hop}.image", v) + asked) for v in seen]
            shares = softmax([linear(parameters, f"hops.{hop}.score", h)[0] for h in hidden])
            u = u + sum(p * v for p, v in zip(shares, seen, strict=True))
        answers.append(linear(parameters, "proj", u).expand(x.shape[1:]))
    return torch.stack(answers)


def check(mixer: StackedAttention, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 1, 3)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: tuple[int, ...]) -> None:
    mixer = randomised(StackedAttention(DIM, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    check(mixer, x=tensor(2, *grid, DIM), mask=random_mask(2, *grid))


def test_cross_equals_loops() -> None:
    mixer = randomised(StackedAttention(DIM))
    masks = {"mask": random_mask(2, 2, 3), "context_mask": random_mask(2, 7, seed=1)}
    with pytest.raises(ValueError, match="batch size of x: 2, got 1"):
        mixer(tensor(2, 2, 3, DIM), tensor(1, 7, DIM))
    check(mixer, x=tensor(2, 2, 3, DIM), context=tensor(2, 7, DIM, seed=3))
    check(mixer, x=tensor(2, 2, 3, DIM), context=tensor(2, 7, DIM, seed=3), **masks)


def test_every_position_gets_one_answer_and_may_be_written() -> None:
    out = StackedAttention(DIM)(tensor(2, 3, 4, DIM).float())
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    out = out.detach()
    out[:, 0, 0] += 1
    assert not torch.equal(out[:, 0, 0], out[:, 0, 1])


@pytest.mark.parametrize("case", golden("attention", "derived_san"))
def test_golden(case: Golden) -> None:
    inputs, params, kwargs = case.leaves("in"), case.leaves("param"), case.kwargs
    query, tokens = inputs["u"], inputs["x"].flatten(2).mT
    for number in range(kwargs["hops"]):
        theirs = {name.partition(".")[2]: t for name, t in params.items() if name.startswith(f"{number}.")}
        state = {"image.weight": theirs["WI"], "query.weight": theirs["WQ"], "query.bias": theirs["bA"]}
        state["score.weight"] = theirs["WP"][None]
        hop = AttentionHop(kwargs["dim"], kwargs["hidden"])
        query = functional_call(hop, state, (query, tokens), strict=True)
    assert_golden(case, query, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="hops=0 must be 1 or more"):
        StackedAttention(DIM, hops=0)
    with pytest.raises(ValueError, match="hidden_dim=0 must be 1 or more"):
        StackedAttention(DIM, hidden_dim=0)
    with pytest.raises(TypeError, match="hops='2' is no whole number"):
        StackedAttention(DIM, hops="2")  # type: ignore[arg-type]  # what a config may hold
    with pytest.raises(ValueError, match="proj_drop=2 is no probability"):
        StackedAttention(DIM, proj_drop=2)

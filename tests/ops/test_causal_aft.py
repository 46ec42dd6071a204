"""Causal AFT-full: the equation token by token, no word from the future, memory that grows linearly."""

from __future__ import annotations

import pytest
import torch
from naive import tensor
from torch import Tensor

from visionattn.ops.aft import aft_full, causal_aft_simple
from visionattn.ops.causal_aft import causal_aft_full

LENGTH = 75  # more than two chunks of 32, and no multiple of it


def inputs(length: int = LENGTH) -> list[Tensor]:
    """k, v, row, column."""
    shapes = ((2, length, 3), (2, length, 3), (4, length), (4, length))
    return [tensor(*shape, seed=seed) for seed, shape in enumerate(shapes)]


def naive(k: Tensor, v: Tensor, row: Tensor, column: Tensor) -> Tensor:
    answers = []
    for t in range(k.shape[1]):
        weights = (k[:, : t + 1] + (row[:, t] @ column[:, : t + 1])[:, None]).exp()
        answers.append((weights * v[:, : t + 1]).sum(1) / weights.sum(1))
    return torch.stack(answers, dim=1)


def test_equals_loops() -> None:
    leaves = [t.requires_grad_() for t in inputs()]
    out, wanted = causal_aft_full(*leaves), naive(*leaves)
    torch.testing.assert_close(out, wanted, rtol=1e-10, atol=1e-10)
    w = tensor(*out.shape, seed=5)
    grads, expected = (torch.autograd.grad((t * w).sum(), leaves) for t in (out, wanted))
    torch.testing.assert_close(grads, expected, rtol=1e-10, atol=1e-10)


def test_the_last_token_gathers_as_in_the_full_form() -> None:
    k, v, row, column = inputs()
    wanted = aft_full(k, v, row.mT @ column)[:, -1]
    torch.testing.assert_close(causal_aft_full(k, v, row, column)[:, -1], wanted, rtol=1e-10, atol=1e-10)


def test_without_biases_it_is_the_simple_form() -> None:
    k, v, row, column = inputs()
    out = causal_aft_full(k, v, torch.zeros_like(row), column)
    torch.testing.assert_close(out, causal_aft_simple(k, v), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("place", [1, 31, 32, 74])
def test_a_later_token_changes_nothing_before_it(place: int) -> None:
    k, v, row, column = inputs()
    before = causal_aft_full(k, v, row, column)
    for changed in (k, v):
        changed[:, place:] *= -100
    for factor in (row, column):
        factor[:, place:] *= -3
    after = causal_aft_full(k, v, row, column)
    torch.testing.assert_close(after[:, :place], before[:, :place], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:, place:], before[:, place:])


def test_sums_of_half_precision_run_in_float32() -> None:
    """As near to running sums in float64 as what float32 rounds to; summed in bfloat16 it is four times as far."""
    k, v = (tensor(2, 2048, 3, seed=seed).bfloat16() for seed in range(2))
    weights = k.double().exp()
    wanted = (weights * v.double()).cumsum(1) / weights.cumsum(1)
    nothing = torch.zeros(1, 2048, dtype=torch.bfloat16)
    for out in (causal_aft_simple(k, v), causal_aft_full(k, v, nothing, nothing)):
        assert out.dtype == torch.bfloat16
        rounded = (wanted.bfloat16().double() - wanted).abs()
        errors = (out.double() - wanted).abs()
        assert errors.mean() < 1.1 * rounded.mean()
        assert errors.max() < 1.1 * rounded.max()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(causal_aft_simple(k.float(), v.float()), wanted.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("falling", [False, True])
def test_finite_where_keys_differ_by_hundreds(falling: bool) -> None:
    k, v, row, column = (t.float() for t in inputs())
    slope = torch.linspace(1, 300, LENGTH)
    k = ((slope.flip(0) if falling else slope)[:, None] + k).requires_grad_()
    out = causal_aft_full(k, v, row, column)
    (gradient,) = torch.autograd.grad(out.square().sum(), k)
    assert out.isfinite().all()
    assert gradient.isfinite().all()
    wanted = causal_aft_full(*(t.double() for t in (k, v, row, column)))
    torch.testing.assert_close(out, wanted.float(), rtol=1e-3, atol=1e-4)

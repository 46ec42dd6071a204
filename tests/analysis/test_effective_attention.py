"""Effective attention against golden vectors and the pseudo-inverse; the shortest distribution by its certificate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.golden import Golden, assert_golden, golden
from tests.naive import tensor
from visionattn.analysis.effective_attention import effective_attention, shortest_distribution


@pytest.mark.parametrize("case", golden("attention", "derived_effective_attention"))
def test_golden_effective_attention(case: Golden) -> None:
    inputs = case.leaves("in")
    assert_golden(case, effective_attention(inputs["A"], inputs["T"]), inputs, {}, 1e-10)


def random_weights(*shape: int, seed: int = 0) -> Tensor:
    return (2 * tensor(*shape, seed=seed)).softmax(-1)


@pytest.mark.parametrize("width", [1, 4, 11, 20])
def test_is_the_shortest_row_with_the_same_output(width: int) -> None:
    weights, values = random_weights(2, 3, 7, 11), tensor(2, 3, 11, width, seed=1)
    if width == 4:
        values[..., 3] = values[..., 0] - 2 * values[..., 1]  # of rank 3
    effective = effective_attention(weights, values)
    torch.testing.assert_close(effective @ values, weights @ values, rtol=1e-10, atol=1e-10)
    shortest = weights @ values @ torch.linalg.pinv(values, rtol=1e-12)
    torch.testing.assert_close(effective, shortest, rtol=1e-9, atol=1e-9)
    if width >= 11:
        torch.testing.assert_close(effective, weights, rtol=1e-9, atol=1e-9)
    else:
        assert effective.norm() < 0.9 * weights.norm()


def test_keeps_the_dtype_and_computes_in_float64() -> None:
    weights, values = random_weights(5, 40), tensor(40, 6, seed=1)
    single = effective_attention(weights.float(), values.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), effective_attention(weights, values), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("keys", "width"), [(9, 1), (12, 4), (30, 8), (6, 10)])
def test_shortest_distribution_is_optimal(keys: int, width: int) -> None:
    """By the conditions of Karush, Kuhn and Tucker: p = max(W u, 0), W spanning values and ones, proves it shortest."""
    weights, values = random_weights(2, 5, keys, seed=keys), tensor(2, keys, width, seed=1)
    found = shortest_distribution(weights, values)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 5, dtype=torch.float64), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found @ values, weights @ values, rtol=1e-7, atol=1e-7)
    assert (found.norm(dim=-1) <= weights.norm(dim=-1) + 1e-9).all()
    for image in range(2):
        kept = torch.cat([values[image], torch.ones(keys, 1, dtype=torch.float64)], dim=1)
        for row in found[image]:
            active = row > 1e-9
            u = torch.linalg.pinv(kept[active], rtol=1e-12) @ row[active]
            torch.testing.assert_close(kept[active] @ u, row[active], rtol=1e-6, atol=1e-6)
            if width < keys - 1 and active.sum() > width + 1:  # else u is not the only one, and proves nothing
                assert (kept[~active] @ u <= 1e-6).all()


def test_without_values_it_is_even() -> None:
    even = shortest_distribution(random_weights(3, 8), torch.zeros(8, 2, dtype=torch.float64))
    torch.testing.assert_close(even, torch.full((3, 8), 1 / 8, dtype=torch.float64), rtol=1e-8, atol=1e-8)


def test_bad_input_is_named() -> None:
    weights, values = random_weights(3, 8), tensor(8, 2)
    with pytest.raises(ValueError, match=r"weights \[\.\.\., N, M\] and values .* got \[3, 8\] and \[7, 2\]"):
        effective_attention(weights, values[:7])
    with pytest.raises(ValueError, match="rows of probabilities"):
        shortest_distribution(weights - 0.1, values)
    with pytest.raises(RuntimeError, match="1 steps left an error of"):
        shortest_distribution(weights, values, most_steps=1)

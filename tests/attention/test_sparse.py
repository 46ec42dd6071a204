"""Sparse transformers' patterns: loops over their definitions, pair by pair, and the pairs themselves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive import random_mask, randomised, tensor
from sparse_pairs import Place, Sees, assert_sees, assert_sees_context, dense_pairs, seen_pairs

from visionattn.attention.sparse import FixedSparseAttention, StridedSparseAttention

DIM = 4
GRIDS: tuple[Place, ...] = ((1,), (11,), (4, 1), (5, 7), (2, 3, 4))


def raster(place: Place, grid: Place) -> int:
    return sum(index * math.prod(grid[axis + 1 :]) for axis, index in enumerate(place))


def strided(stride: int | None = None, causal: bool = False) -> Sees:
    def sees(query: Place, key: Place, grid: Place) -> bool:
        length, back = stride or grid[-1], raster(query, grid) - raster(key, grid)
        return (abs(back) < length or back % length == 0) and (back >= 0 or not causal)

    return sees


def fixed(stride: int | None = None, summary: int = 4, causal: bool = False) -> Sees:
    def sees(query: Place, key: Place, grid: Place) -> bool:
        length, i, j = stride or grid[-1], raster(query, grid), raster(key, grid)
        return (i // length == j // length or j % length >= length - summary) and (j <= i or not causal)

    return sees


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pairs_are_those_of_the_definition(grid: Place, causal: bool) -> None:
    for stride in (None, 1, 3, 4, 50):
        mixer = StridedSparseAttention(DIM, num_heads=1, stride=stride, causal=causal)
        assert torch.equal(seen_pairs(mixer, grid), dense_pairs(strided(stride, causal), grid))
        for summary in (1, 2, 4):
            other = FixedSparseAttention(DIM, num_heads=1, stride=stride, summary=summary, causal=causal)
            assert torch.equal(seen_pairs(other, grid), dense_pairs(fixed(stride, summary, causal), grid))


@pytest.mark.parametrize("options", [{}, {"stride": 3, "causal": True}], ids=str)
@pytest.mark.parametrize("grid", [(7,), (4, 3)], ids=str)
def test_strided_equals_loops(options: dict[str, Any], grid: Place) -> None:
    mixer = randomised(StridedSparseAttention(DIM, num_heads=2, key_dim=2, **options))
    assert_sees(mixer, strided(**options), tensor(2, *grid, DIM))
    assert_sees(mixer, strided(**options), tensor(2, *grid, DIM), random_mask(2, *grid))


@pytest.mark.parametrize("options", [{"summary": 1}, {"stride": 3, "summary": 2, "causal": True}], ids=str)
@pytest.mark.parametrize("grid", [(7,), (4, 3)], ids=str)
def test_fixed_equals_loops(options: dict[str, Any], grid: Place) -> None:
    mixer = randomised(FixedSparseAttention(DIM, num_heads=2, value_dim=6, **options))
    assert_sees(mixer, fixed(**options), tensor(2, *grid, DIM))
    assert_sees(mixer, fixed(**options), tensor(2, *grid, DIM), random_mask(2, *grid, seed=1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("grid", [(7,), (4, 3), (2, 3, 2)], ids=str)
def test_another_map_of_the_same_grid_equals_loops(grid: Place, causal: bool) -> None:
    """Up to the query's own place on it, where they are causal."""
    strides = randomised(StridedSparseAttention(DIM, num_heads=2, stride=3, causal=causal, key_dim=2))
    assert_sees_context(strides, strided(3, causal), grid)
    blocks = randomised(FixedSparseAttention(DIM, num_heads=2, stride=3, summary=2, causal=causal, value_dim=6))
    assert_sees_context(blocks, fixed(3, 2, causal), grid)


def test_every_token_reaches_every_other_in_two_steps() -> None:
    for mixer in (StridedSparseAttention(DIM, num_heads=1), FixedSparseAttention(DIM, num_heads=1, summary=1)):
        seen = seen_pairs(mixer, (5, 7)).double()
        assert not (seen > 0).all()
        assert (seen @ seen > 0).all()


def test_low_logits_lose_nothing_to_a_part_that_is_empty() -> None:
    mixer = FixedSparseAttention(DIM, num_heads=1, stride=3, summary=1, causal=True)
    low = torch.full((1, 1, 7, 4), 100.0)
    weights = mixer.attend(low, -low, torch.eye(7)[None, None], (7,), (7,))[0, 0]
    pairs = dense_pairs(fixed(3, 1, True), (7,)).float()
    torch.testing.assert_close(weights, pairs / pairs.sum(-1, keepdim=True))


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="stride=0 must be 1 or more; None takes the extent"):
        StridedSparseAttention(DIM, num_heads=1, stride=0)
    with pytest.raises(ValueError, match="stride=-1 must be 1 or more"):
        FixedSparseAttention(DIM, num_heads=1, stride=-1)
    with pytest.raises(ValueError, match="summary=0 must be 1 or more"):
        FixedSparseAttention(DIM, num_heads=1, summary=0)
    with pytest.raises(TypeError, match=r"stride=2\.0 is no whole number"):
        StridedSparseAttention(DIM, num_heads=1, stride=2.0)  # type: ignore[arg-type]

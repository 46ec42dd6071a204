"""Criss-cross and axial attention: loops over their definitions, pair by pair, and the pairs themselves."""

from __future__ import annotations

import pytest
import torch
from naive import random_mask, randomised, tensor
from sparse_pairs import Place, Sees, assert_sees, assert_sees_context, dense_pairs, seen_pairs

from visionattn.attention.criss_cross import AxialAttention, CrissCrossAttention

DIM = 4


def on_a_line(query: Place, key: Place, grid: Place) -> bool:
    return sum(a != b for a, b in zip(query, key, strict=True)) <= 1


def along(axis: int) -> Sees:
    return lambda query, key, grid: all(a == b for n, (a, b) in enumerate(zip(query, key, strict=True)) if n != axis)


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 7), (3, 4, 5)], ids=str)
def test_pairs_are_those_of_the_definition(grid: Place) -> None:
    assert torch.equal(seen_pairs(CrissCrossAttention(DIM, num_heads=1), grid), dense_pairs(on_a_line, grid))
    for axis in range(len(grid)):
        mixer = AxialAttention(DIM, num_heads=1, axis=axis)
        assert torch.equal(seen_pairs(mixer, grid), dense_pairs(along(axis), grid))


@pytest.mark.parametrize("grid", [(4, 3), (2, 3, 2)], ids=str)
def test_criss_cross_equals_loops(grid: Place) -> None:
    mixer = randomised(CrissCrossAttention(DIM, num_heads=2, key_dim=2))
    assert_sees(mixer, on_a_line, tensor(2, *grid, DIM))
    assert_sees(mixer, on_a_line, tensor(2, *grid, DIM), random_mask(2, *grid))


@pytest.mark.parametrize(("grid", "axis"), [((5,), 0), ((4, 3), 0), ((4, 3), 1), ((2, 3, 2), 1)], ids=str)
def test_axial_equals_loops(grid: Place, axis: int) -> None:
    mixer = randomised(AxialAttention(DIM, num_heads=2, axis=axis, value_dim=6))
    assert_sees(mixer, along(axis), tensor(2, *grid, DIM))
    assert_sees(mixer, along(axis), tensor(2, *grid, DIM), random_mask(2, *grid, seed=1))


@pytest.mark.parametrize("grid", [(4, 3), (2, 3, 2)], ids=str)
def test_another_map_of_the_same_grid_equals_loops(grid: Place) -> None:
    assert_sees_context(randomised(CrissCrossAttention(DIM, num_heads=2, key_dim=2)), on_a_line, grid)
    for axis in range(len(grid)):
        assert_sees_context(randomised(AxialAttention(DIM, num_heads=2, axis=axis, value_dim=6)), along(axis), grid)


def test_a_line_without_a_real_key_answers_nothing() -> None:
    mixer = randomised(AxialAttention(DIM, num_heads=2, axis=1))
    mask = torch.ones(1, 3, 4, dtype=torch.bool)
    mask[:, 1] = False
    x = tensor(1, 3, 4, DIM).requires_grad_()
    out = mixer(x, mask=mask)
    torch.testing.assert_close(out[0, 1], mixer.proj.bias.expand(4, -1))
    (gradient,) = torch.autograd.grad(out[0, 1].sum(), x)
    assert gradient.abs().max() == 0


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="axis=2 is no axis of a grid of 2 dimensions; use 0 to 1"):
        AxialAttention(DIM, (4, 4), num_heads=1, axis=2)
    with pytest.raises(ValueError, match="axis=-1 is no axis"):
        AxialAttention(DIM, num_heads=1, axis=-1)
    with pytest.raises(ValueError, match=r"AxialAttention expects x of shape \[B, H, W, 4\]"):
        AxialAttention(DIM, num_heads=1, axis=1)(torch.zeros(1, 5, DIM))
    with pytest.raises(ValueError, match=r"CrissCrossAttention expects x of shape \[B, H, W, 4\]"):
        CrissCrossAttention(DIM, num_heads=1)(torch.zeros(1, 5, DIM))

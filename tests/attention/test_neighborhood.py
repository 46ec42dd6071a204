"""Neighbourhoods: loops over their definitions, pair by pair on odd grids; the n-gram form; no table of all pairs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive import random_mask, randomised, tensor
from sparse_pairs import Place, Sees, assert_sees, assert_sees_context, dense_pairs, seen_pairs
from torch.utils._python_dispatch import TorchDispatchMode

from visionattn.attention.neighborhood import BlockwiseAttention, LocalAttention, NeighborhoodAttention
from visionattn.ops.neighborhood import causal_ngram_attention

DIM = 4
GRIDS: tuple[Place, ...] = ((11,), (1, 1), (2, 9), (5, 7), (8, 6), (3, 4, 5))
KERNELS = ((1, 1), (3, 1), (5, 1), (3, 2), (3, 3), (5, 2))
RADII = ((0, 1, math.inf), (1, 1, math.inf), (2, 1, math.inf), (2, 1, 1.0), (2, 1, 2.0), (3, 1, 2.0), (1, 2, math.inf))


def moved_inwards(kernel: int, dilation: int) -> Sees:
    """NAT: along every axis the kernel positions around the query that the map has, of its interleaved grid."""

    def along(query: int, key: int, extent: int) -> bool:
        row = list(range(query % dilation, extent, dilation))
        at = row.index(query)
        first = max(0, min(at - kernel // 2, len(row) - kernel))
        return key in row[first : first + kernel]

    return lambda query, key, grid: all(along(*numbers) for numbers in zip(query, key, grid, strict=True))


def cut_off(radius: int, dilation: int, norm: float) -> Sees:
    def sees(query: Place, key: Place, grid: Place) -> bool:
        steps = [abs(a - b) / dilation for a, b in zip(query, key, strict=True)]
        if any(step != int(step) for step in steps):
            return False
        far = max(steps) if norm == math.inf else sum(step**norm for step in steps) ** (1 / norm)
        return far <= radius + 1e-9

    return sees


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_pairs_are_those_of_the_definition(grid: Place) -> None:
    for kernel, dilation in KERNELS:
        mixer: BlockwiseAttention = NeighborhoodAttention(DIM, num_heads=1, kernel=kernel, dilation=dilation)
        assert torch.equal(seen_pairs(mixer, grid), dense_pairs(moved_inwards(kernel, dilation), grid))
    for radius, dilation, norm in RADII:
        mixer = LocalAttention(DIM, num_heads=1, radius=radius, dilation=dilation, norm=norm)
        assert torch.equal(seen_pairs(mixer, grid), dense_pairs(cut_off(radius, dilation, norm), grid))


@pytest.mark.parametrize("options", [{"kernel": 3}, {"kernel": 3, "dilation": 2, "key_dim": 2}], ids=str)
@pytest.mark.parametrize("grid", [(7,), (5, 4)], ids=str)
def test_neighborhood_equals_loops(options: dict[str, Any], grid: Place) -> None:
    mixer = randomised(NeighborhoodAttention(DIM, num_heads=2, **options))
    sees = moved_inwards(options["kernel"], options.get("dilation", 1))
    assert_sees(mixer, sees, tensor(2, *grid, DIM))
    assert_sees(mixer, sees, tensor(2, *grid, DIM), random_mask(2, *grid))


@pytest.mark.parametrize("numbers", [(1, 1, math.inf), (2, 1, 1.0), (1, 2, math.inf)], ids=str)
@pytest.mark.parametrize("grid", [(7,), (5, 4)], ids=str)
def test_local_equals_loops(numbers: tuple[int, int, float], grid: Place) -> None:
    radius, dilation, norm = numbers
    mixer = randomised(LocalAttention(DIM, num_heads=2, radius=radius, dilation=dilation, norm=norm, value_dim=6))
    assert_sees(mixer, cut_off(*numbers), tensor(2, *grid, DIM))
    assert_sees(mixer, cut_off(*numbers), tensor(2, *grid, DIM), random_mask(2, *grid, seed=1))


@pytest.mark.parametrize("grid", [(7,), (5, 4), (2, 3, 2)], ids=str)
def test_another_map_of_the_same_grid_equals_loops(grid: Place) -> None:
    mixer = randomised(NeighborhoodAttention(DIM, num_heads=2, kernel=3, dilation=1 + len(grid) % 2, value_dim=6))
    assert_sees_context(mixer, moved_inwards(3, 1 + len(grid) % 2), grid)
    mixer = randomised(LocalAttention(DIM, num_heads=2, radius=2, norm=1.0, key_dim=2, qkv_bias=False))
    assert_sees_context(mixer, cut_off(2, 1, 1.0), grid)


@pytest.mark.parametrize("order", [1, 3, 4, 20])
def test_ngram_equals_the_masked_table(order: int) -> None:
    q, k, v = tensor(2, 2, 11, 3), tensor(2, 2, 11, 3, seed=1), tensor(2, 2, 11, 5, seed=2)
    back = torch.arange(11)[:, None] - torch.arange(11)
    logits = (q @ k.mT / math.sqrt(3)).masked_fill((back < 0) | (back >= order), -math.inf)
    torch.testing.assert_close(causal_ngram_attention(q, k, v, order), logits.softmax(-1) @ v, rtol=1e-12, atol=1e-12)


def test_a_query_without_a_real_key_answers_nothing() -> None:
    mixer = randomised(NeighborhoodAttention(DIM, num_heads=2, kernel=3))
    mask = torch.ones(1, 9, 9, dtype=torch.bool)
    mask[:, :4, :4] = False
    x = tensor(1, 9, 9, DIM).requires_grad_()
    out = mixer(x, mask=mask)
    torch.testing.assert_close(out[0, 0, 0], mixer.proj.bias)
    (gradient,) = torch.autograd.grad(out[0, :3, :3].sum(), x)
    assert gradient.abs().max() == 0


class _LargestTensor(TorchDispatchMode):
    """How many numbers the largest tensor made inside has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = function(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.numbers = max(self.numbers, out.numel())
        return out


@pytest.mark.parametrize("mechanism", [NeighborhoodAttention, LocalAttention])
def test_no_table_of_all_pairs_is_made(mechanism: type[BlockwiseAttention]) -> None:
    mixer = mechanism(4, num_heads=1)
    with _LargestTensor() as largest, torch.no_grad():
        mixer(torch.zeros(1, 28, 28, 4))
    assert largest.numbers <= 28 * 28 * 13 * 13


def test_dropout_drops_weights_in_training_only() -> None:
    mixer = LocalAttention(DIM, num_heads=1, radius=1, attn_drop=1.0, qkv_bias=False)
    x = torch.randn(1, 4, 4, DIM)
    torch.testing.assert_close(mixer.train()(x), mixer.proj.bias.expand(x.shape))
    assert not torch.allclose(mixer.eval()(x), mixer.proj.bias.expand(x.shape))


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="kernel=4 must be odd, such as 5"):
        NeighborhoodAttention(DIM, num_heads=1, kernel=4)
    with pytest.raises(ValueError, match="dilation=0 must be 1 or more"):
        NeighborhoodAttention(DIM, num_heads=1, dilation=0)
    with pytest.raises(TypeError, match=r"kernel=3\.0 is no whole number"):
        NeighborhoodAttention(DIM, num_heads=1, kernel=3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="radius=-1 must be 0 or more"):
        LocalAttention(DIM, num_heads=1, radius=-1)
    with pytest.raises(ValueError, match=r"norm=0\.5 must be 1 or more"):
        LocalAttention(DIM, num_heads=1, norm=0.5)
    with pytest.raises(ValueError, match="order=0 must be 1 or more"):
        causal_ngram_attention(*tensor(3, 1, 1, 4, 2), 0)

"""The index arithmetic of windows against pad, roll and reshape, and against plain loops."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from visionattn.ops.window import (
    WindowLayout,
    hidden_pairs,
    merge,
    partition,
    relative_position_index,
    window_attention,
    window_bias,
    window_layout,
)

# grid, window, shift
LAYOUTS = [
    ((5, 7), (4, 3), (2, 1)),
    ((5, 7), (4, 3), (0, 0)),
    ((8, 6), (4, 3), (3, 2)),
    ((1, 1), (4, 3), (1, 2)),
    ((3, 11), (5, 4), (0, 3)),
    ((10,), (4,), (3,)),
    ((3, 4, 5), (2, 3, 2), (1, 2, 0)),
]
each_layout = pytest.mark.parametrize(("grid", "window", "shift"), LAYOUTS)
either_order = pytest.mark.parametrize("shift_before_padding", [False, True])


def rolled_and_padded(
    x: Tensor, window: tuple[int, ...], shift: tuple[int, ...], shift_before_padding: bool, fill: int
) -> Tensor:
    """x [*grid] in windows, [W, T], by pad, roll, reshape and permute."""
    axes = tuple(range(x.dim()))
    back = tuple(-s for s in shift)
    if shift_before_padding:
        x = x.roll(back, axes)
    for axis, length in enumerate(window):
        missing = -x.shape[axis] % length
        shape = list(x.shape)
        shape[axis] = missing
        x = torch.cat([x, x.new_full(shape, fill)], dim=axis)
    if not shift_before_padding:
        x = x.roll(back, axes)
    split = [n for extent, length in zip(x.shape, window, strict=True) for n in (extent // length, length)]
    order = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return x.reshape(split).permute(order).reshape(-1, math.prod(window))


@either_order
@each_layout
def test_layout_is_pad_roll_and_reshape(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], shift_before_padding: bool
) -> None:
    layout = window_layout(grid, window, shift, shift_before_padding=shift_before_padding)
    n = math.prod(grid)
    expected = rolled_and_padded(torch.arange(n).reshape(grid), window, shift, shift_before_padding, fill=n)
    assert torch.equal(layout.tokens, expected)
    assert torch.equal(layout.tokens.flatten()[layout.slots], torch.arange(n))
    assert layout.padded == bool((expected == n).any())


@each_layout
def test_regions_part_the_two_edges_that_a_shift_joins(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...]
) -> None:
    """Without the roll, the windows are those of a plane tiled from `shift`: neighbours have one tile in common."""
    layout = window_layout(grid, window, shift)
    hidden = hidden_pairs(layout, mask_padding=False)
    if not any(shift):
        assert hidden is None
        return
    assert hidden is not None
    cells = list(itertools.product(*map(range, grid)))
    for tokens, pairs in zip(layout.tokens, hidden[0], strict=True):
        places = [(t, cells[i]) for t, i in enumerate(tokens.tolist()) if i < len(cells)]
        for (t, query), (s, key) in itertools.product(places, places):
            tiles = [[(c - o) // m for c, o, m in zip(cell, shift, window, strict=True)] for cell in (query, key)]
            assert pairs[t, s] == (tiles[0] != tiles[1]), (query, key)


@pytest.mark.parametrize("mask_padding", [True, False])
@each_layout
def test_masked_tokens_and_padding_are_hidden(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], mask_padding: bool
) -> None:
    layout = window_layout(grid, window, shift)
    n = math.prod(grid)
    mask = torch.rand(2, n, generator=torch.Generator().manual_seed(0)) > 0.4
    hidden = hidden_pairs(layout, mask, mask_padding=mask_padding)
    assert hidden is not None
    regions = torch.zeros_like(layout.tokens) if layout.regions is None else layout.regions
    hidden = hidden.expand(2, *layout.tokens.shape, layout.tokens.shape[1])
    for b, w, t, s in itertools.product(*map(range, hidden.shape)):
        key = int(layout.tokens[w, s])
        real = bool(mask[b, key]) if key < n else not mask_padding
        assert hidden[b, w, t, s] == (not real or bool(regions[w, t] != regions[w, s]))
    if mask_padding:
        everything = hidden_pairs(layout, torch.ones(1, n, dtype=torch.bool))
        alone = hidden_pairs(layout)
        assert everything is not None
        assert torch.equal(everything, torch.zeros_like(everything) if alone is None else alone)


@either_order
@each_layout
def test_merge_undoes_partition(
    grid: tuple[int, ...], window: tuple[int, ...], shift: tuple[int, ...], shift_before_padding: bool
) -> None:
    heads, n = 3, math.prod(grid)
    layout = window_layout(grid, window, shift, heads, shift_before_padding=shift_before_padding)
    x = torch.randn(2, n, heads, 4).transpose(1, 2)
    padding = torch.randn(heads, 4)
    windows = partition(x, layout, padding)
    assert windows.shape == (2, len(layout.tokens), heads, math.prod(window), 4)
    assert torch.equal(merge(windows, layout), x)
    for w, t in itertools.product(*map(range, layout.tokens.shape)):
        token = int(layout.tokens[w, t])
        assert torch.equal(windows[:, w, :, t], x[:, :, token] if token < n else padding.expand(2, -1, -1))
        if token == n:
            assert not partition(x, layout)[:, w, :, t].any()


@pytest.mark.parametrize("window", [(4,), (4, 3), (1, 5), (2, 3, 2)])
def test_relative_position_index_counts_the_offsets(window: tuple[int, ...]) -> None:
    index = relative_position_index(window)
    offsets = list(itertools.product(*(range(1 - m, m) for m in window)))  # row-major, as the table
    cells = list(itertools.product(*map(range, window)))
    for (i, query), (j, key) in itertools.product(enumerate(cells), enumerate(cells)):
        assert offsets[index[i, j]] == tuple(a - b for a, b in zip(query, key, strict=True))
    assert index.max() == len(offsets) - 1


def layout_2d() -> WindowLayout:
    return window_layout((5, 7), (4, 3), (2, 1), heads=2)


@pytest.mark.parametrize("hides", ["nothing", "regions", "tokens"])
@pytest.mark.parametrize("gradient", [True, False])
def test_window_attention_is_softmax_attention(hides: str, gradient: bool) -> None:
    """The fused form and the one written out for the gradient of the bias, for each way the bias is broadcast."""
    layout, generator = layout_2d(), torch.Generator().manual_seed(0)
    w, t = layout.tokens.shape
    q, k, v = (torch.randn(3, w, 2, t, d, dtype=torch.float64, generator=generator) for d in (4, 4, 5))
    relative = torch.randn(2, t, t, dtype=torch.float64, generator=generator).requires_grad_(gradient)
    mask = torch.ones(3, 35, dtype=torch.bool)
    mask[1, ::3] = False
    hidden = {"nothing": None, "regions": hidden_pairs(layout), "tokens": hidden_pairs(layout, mask)}[hides]
    out = window_attention(q, k, v, window_bias(relative, hidden))
    logits = q @ k.transpose(-2, -1) / math.sqrt(4) + relative
    if hidden is not None:
        logits = torch.where(hidden[:, :, None], -1e300, logits)
    torch.testing.assert_close(out, F.softmax(logits, dim=-1) @ v, rtol=1e-12, atol=1e-12)
    if hides == "nothing":
        plain = window_attention(q, k, v)
        torch.testing.assert_close(plain, F.softmax(logits - relative, dim=-1) @ v, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("shift_before_padding", [False, True])
def test_the_layout_compiles_to_code(shift_before_padding: bool) -> None:
    """Also without a backward, where the index arithmetic is fused into what reads by it."""
    torch._dynamo.reset()

    def mapped(x: Tensor) -> Tensor:
        layout = window_layout((14, 21), (7, 7), (3, 3), heads=2, shift_before_padding=shift_before_padding)
        return merge(2 * partition(x, layout), layout)

    x = torch.randn(1, 2, 14 * 21, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(mapped, fullgraph=True, dynamic=False)(x), 2 * x)
    torch._dynamo.reset()

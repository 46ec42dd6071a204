"""Fourier attention: cosine sums in loops, golden vectors, what stays of a constant and of a smooth map."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call

from visionattn.attention.fourier import FourierAttention, kept_frequencies, share_of
from visionattn.ops.cosine_transform import cosine_basis, low_passed

DIM = 6
OPTIONS: tuple[dict[str, Any], ...] = (
    {"num_heads": 1},
    {"num_heads": 2, "ratio": 0.7, "keep_amplitude": True},
    {"num_heads": 3, "ratio": 1.0, "value_dim": 9},
)
Place = tuple[int, ...]


def cosine(extent: int, frequency: int, place: int) -> float:
    scale = math.sqrt((1 if frequency == 0 else 2) / extent)
    return scale * math.cos(math.pi * (2 * place + 1) * frequency / (2 * extent))


def naive_low_pass(
    tokens: dict[Place, Tensor], grid: Place, size: Place, keep_amplitude: bool
) -> dict[Place, Tensor | float]:
    """Each place of the smaller map from every token, frequency by frequency."""
    growth = 1.0 if keep_amplitude else math.sqrt(math.prod(grid) / math.prod(size))
    short = {}
    for there in positions(size):
        total: Tensor | float = 0.0
        for here, token in tokens.items():
            weight = sum(
                math.prod(
                    cosine(n, k, i) * cosine(m, k, j) * math.sqrt(m / n)
                    for i, j, k, n, m in zip(here, there, frequencies, grid, size, strict=True)
                )
                for frequencies in positions(size)
            )
            total = total + growth * weight * token
        short[there] = total
    return short


def covers(cell: Place, place: Place, grid: Place, size: Place) -> bool:
    """The cells overlap where the extents do not divide, as those of an adaptive pooling."""
    return all(c * n // m <= i < -(-(c + 1) * n // m) for c, i, n, m in zip(cell, place, grid, size, strict=True))


def naive_attention(
    mixer: FourierAttention,
    parameters: Parameters,
    x: Tensor,
    context: Tensor | None = None,
    mask: Tensor | None = None,
    context_mask: Tensor | None = None,
) -> Tensor:
    source, source_mask = (x, mask) if context is None else (context, context_mask)
    grid, rows = tuple(source.shape[1:-1]), []
    size = tuple(math.ceil(mixer.ratio * n) for n in grid)
    widths = [mixer.key_dim, mixer.key_dim, mixer.value_dim]
    for item in range(len(x)):
        places = [p for p in positions(grid) if source_mask is None or source_mask[item][p]]
        projected = {p: linear(parameters, "qkv", source[item][p]).split(widths) for p in places}
        keys, values = (
            naive_low_pass({p: t[part] for p, t in projected.items()}, grid, size, mixer.keep_amplitude)
            for part in (1, 2)
        )
        seen = [cell for cell in positions(size) if any(covers(cell, p, grid, size) for p in places)]
        for place in positions(tuple(x.shape[1:-1])):
            query = linear(parameters, "qkv", x[item][place]).split(widths)[0]
            heads = []
            for head in range(mixer.num_heads):
                q = query.chunk(mixer.num_heads)[head]
                weights = softmax([q @ keys[c].chunk(mixer.num_heads)[head] / math.sqrt(len(q)) for c in seen])
                heads.append(
                    sum(w * values[c].chunk(mixer.num_heads)[head] for w, c in zip(weights, seen, strict=True))
                )
            rows.append(linear(parameters, "proj", torch.cat(heads)))
    return torch.stack(rows).reshape(x.shape)


def check(mixer: FourierAttention, **inputs: Tensor | None) -> None:
    assert_equals_naive(mixer, lambda parameters, **kwargs: naive_attention(mixer, parameters, **kwargs), inputs)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("grid", [(5,), (4, 3), (2, 3, 2)], ids=str)
def test_equals_loops(options: dict[str, Any], grid: Place) -> None:
    mixer = randomised(FourierAttention(DIM, **options))
    check(mixer, x=tensor(2, *grid, DIM))
    if len(grid) < 3:
        mask = random_mask(2, *grid)
        mask[1, grid[0] // 2 :] = False  # cells that cover padding alone
        check(mixer, x=tensor(2, *grid, DIM), mask=mask)
        check(mixer, x=tensor(2, 2, 2, DIM), context=tensor(2, *grid, DIM, seed=3), context_mask=mask)


def test_a_constant_stays_with_its_amplitude_kept() -> None:
    constant = torch.full((1, 6, 10, 2), 3.0)
    torch.testing.assert_close(low_passed(constant, (4, 5), keep_amplitude=True), torch.full((1, 4, 5, 2), 3.0))
    grown = low_passed(constant, (4, 5), keep_amplitude=False)
    torch.testing.assert_close(grown, torch.full((1, 4, 5, 2), 3 * math.sqrt(60 / 20)))


def test_a_wave_that_fits_is_sampled_where_the_smaller_map_lies() -> None:
    """cos(pi k (i + 1/2) / n) lies at the same share of the line whatever its number of places."""
    line, wanted = (torch.cos(math.pi * 3 * (torch.arange(n).double() + 0.5) / n)[None, :, None] for n in (40, 10))
    torch.testing.assert_close(low_passed(line, (10,), keep_amplitude=True), wanted)
    too_fast = torch.cos(math.pi * 10 * (torch.arange(40).double() + 0.5) / 40)[None, :, None]
    torch.testing.assert_close(low_passed(too_fast, (10,), keep_amplitude=True), torch.zeros(1, 10, 1).double())


def test_float32_keeps_its_digits_on_long_lines() -> None:
    """The angle of a high frequency is hundreds of turns."""
    single, double = (torch.empty(0, dtype=dtype) for dtype in (torch.float32, torch.float64))
    found, wanted = (cosine_basis(601, 601, like)[-3:] for like in (single, double))
    assert (found - wanted).abs().max() < 1e-7


def test_how_many_frequencies_are_kept() -> None:
    for extent, ratio, kept in ((30, 0.1, 3), (31, 0.1, 4), (7, 1.0, 7), (5, 1e-9, 1), (9, 1 / 3, 3)):
        assert kept_frequencies(extent, share_of(ratio)) == kept


def test_heads_of_padding_alone_answer_nothing() -> None:
    mixer = FourierAttention(DIM, num_heads=2).double()
    q, k, v = (tensor(1, 2, 6, 3, seed=seed) for seed in range(3))
    out = mixer.attend(q, k, v, (6,), (6,), torch.zeros(1, 6, dtype=torch.bool))
    torch.testing.assert_close(out, torch.zeros_like(out))


@pytest.mark.parametrize("case", golden("attention", "fourier"))
def test_golden(case: Golden) -> None:
    inputs, params, cls = case.leaves("in"), case.leaves("param"), case.row["cls"]
    x = inputs["x"]
    if cls == "dct":
        out = x @ cosine_basis(x.shape[-1], x.shape[-1], x).mT
        if case.kwargs.get("norm") != "ortho":
            first = torch.arange(x.shape[-1]) == 0
            out = out * torch.where(first, 4.0, 2.0).to(out).mul(x.shape[-1]).sqrt()
    elif cls == "dct_downsample":
        out = low_passed(x, (case.kwargs["length"],), keep_amplitude=False)
    else:
        assert cls == "DCTAttention", f"say here how {cls} is one of ours"
        out = dct_attention(case, x, params)
    assert_golden(case, out, inputs, params, tol=1e-10)


def dct_attention(case: Golden, x: Tensor, params: Parameters) -> Tensor:
    """The reference shortens the sequence first: its queries are few too, and its biases do not grow with the rest."""
    config = next((arg for arg in case.args if isinstance(arg, dict)), case.kwargs)
    heads, ratio, dim = config["num_head"], config["dct_percentage"], x.shape[-1]
    mixer = FourierAttention(dim, num_heads=heads, ratio=ratio).double()
    kept = kept_frequencies(x.shape[1], share_of(ratio))
    short, factor = low_passed(x, (kept,), keep_amplitude=False), math.sqrt(kept / x.shape[1])
    shrunk = {"q": 1.0, "k": factor, "v": factor}
    state = {
        "qkv.weight": torch.cat([params[f"W_{name}.weight"] for name in "qkv"]),
        "qkv.bias": torch.cat([params[f"W_{name}.bias"] * factor for name, factor in shrunk.items()]),
        "proj.weight": torch.eye(dim, dtype=x.dtype),
        "proj.bias": torch.zeros(dim, dtype=x.dtype),
    }
    out: Tensor = functional_call(mixer, state, (short, x), strict=True)
    return out.unflatten(-1, (heads, -1)).transpose(1, 2)


@pytest.mark.parametrize("case", golden("attention", "derived_fourier2d"))
def test_golden_on_maps(case: Golden) -> None:
    inputs = case.leaves("in")
    short = low_passed(
        inputs["x"].movedim(1, -1), case.kwargs["size"], keep_amplitude=case.kwargs.get("preserve_scale", False)
    )
    assert_golden(case, short.movedim(-1, 1), inputs, {}, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    for ratio in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=rf"ratio={ratio} is no share of the frequencies; use a number above 0"):
            FourierAttention(DIM, num_heads=2, ratio=ratio)

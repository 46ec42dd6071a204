"""Channel attention: channel by channel in loops, golden vectors of SAMformer."""

from __future__ import annotations

import math

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, random_mask, randomised, softmax, tensor
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from visionattn.attention.channel import ChannelAttention

DIM = 3


def naive_mixer(mixer: ChannelAttention, parameters: Parameters, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Every cell's mean over its real positions; then every channel looks at every channel."""
    grid, answers = tuple(x.shape[1:-1]), []
    for item in range(len(x)):
        channels = []
        for channel in range(DIM):
            pooled = []
            for cell in positions(mixer.cells):
                # From floor(i L / s) up to ceil((i + 1) L / s), as adaptive pooling has it.
                spans = [
                    range(i * extent // size, -(-(i + 1) * extent // size))
                    for i, extent, size in zip(cell, grid, mixer.cells, strict=True)
                ]
                inside = [p for p in positions(grid) if all(n in span for n, span in zip(p, spans, strict=True))]
                real = [x[item][p][channel] for p in inside if mask is None or mask[item][p]]
                pooled.append(sum(real) / len(real) if real else torch.zeros((), dtype=torch.float64))
            channels.append(torch.stack(pooled))
        queries = [linear(parameters, "query", channel) for channel in channels]
        keys = [linear(parameters, "key", channel) for channel in channels]
        shares = [softmax([q @ k / math.sqrt(len(q)) for k in keys]) for q in queries]
        for p in positions(grid):
            answers += [sum(share[c] * x[item][p][c] for c in range(DIM)) for share in shares]
    return torch.stack(answers).reshape(x.shape)


@pytest.mark.parametrize("pool", [1, 2, 3])
@pytest.mark.parametrize("grid", [(5,), (2, 3), (2, 1, 2)], ids=str)
def test_equals_loops(pool: int, grid: tuple[int, ...]) -> None:
    mixer = randomised(ChannelAttention(DIM, grid, pool=pool, key_dim=2))
    for mask in (None, random_mask(2, *grid)):
        inputs = {"x": tensor(2, *grid, DIM), "mask": mask}
        assert_equals_naive(mixer, lambda parameters, **kwargs: naive_mixer(mixer, parameters, **kwargs), inputs)


def test_a_map_of_another_size_with_the_same_cells_has_the_same_weights() -> None:
    mixer, coarse = randomised(ChannelAttention(DIM, pool=2, key_dim=2)), tensor(1, 2, 2, DIM)
    fine = coarse.repeat_interleave(3, dim=1).repeat_interleave(5, dim=2)
    expected = mixer(coarse).repeat_interleave(3, dim=1).repeat_interleave(5, dim=2)
    torch.testing.assert_close(mixer(fine), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", golden("attention", "samformer"))
def test_golden_samformer(case: Golden) -> None:
    """The whole network: SAMformer's values mix positions, which may as well be done behind the mixer."""
    inputs, params = case.leaves("in"), case.leaves("param")
    channels, length, key_dim, _ = case.args
    series, revin = inputs["x"], case.kwargs.get("use_revin", True)
    if revin:  # the reversible norm around the network; no gradient goes through its statistics
        mean = series.detach().mean(-1, keepdim=True)
        deviation = (series.detach().var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
        weight, bias = params["revin.affine_weight"][:, None], params["revin.affine_bias"][:, None]
        series = (series - mean) / deviation * weight + bias
    mixer = ChannelAttention(channels, (length,), pool=length, key_dim=key_dim)
    names = {"query": "compute_queries", "key": "compute_keys"}
    state = {f"{ours}.{k}": params[f"{theirs}.{k}"] for ours, theirs in names.items() for k in ("weight", "bias")}
    mixed = functional_call(mixer, state, (series.mT,), strict=True).mT
    # Rows of weights sum to 1: the values' bias goes through them unchanged.
    values = F.linear(mixed, params["compute_values.weight"], params["compute_values.bias"])
    out = F.linear(series + values, params["linear_forecaster.weight"], params["linear_forecaster.bias"])
    if revin:
        out = (out - bias) / (weight + 1e-10) * deviation + mean
    assert_golden(case, out, inputs, params, tol=1e-10)


def test_errors_say_the_way_out() -> None:
    with pytest.raises(ValueError, match="pool=0 must be 1 or more"):
        ChannelAttention(DIM, pool=0)
    with pytest.raises(ValueError, match="key_dim=0 must be 1 or more"):
        ChannelAttention(DIM, key_dim=0)
    with pytest.raises(TypeError, match=r"pool=2\.5 is no whole number"):
        ChannelAttention(DIM, pool=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ChannelAttention expects x of shape \[B, H, W, 3\]"):
        ChannelAttention(DIM)(torch.zeros(1, 9, DIM))

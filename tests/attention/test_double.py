"""Double attention: the paper's gathering and distributing in loops, golden vectors of a public copy."""

from __future__ import annotations

import pytest
import torch
from golden import Golden, assert_golden, golden
from naive import Parameters, assert_equals_naive, linear, positions, randomised, softmax, tensor
from torch import Tensor
from torch.nn import functional as F

from visionattn.attention.double import DoubleAttention


def naive_attention(mixer: DoubleAttention, parameters: Parameters, x: Tensor) -> Tensor:
    """z_i = sum_c V_ci sum_j B_cj A_j: one gathered vector per channel of B, then a choice among them."""
    rows = []
    for item in x:
        places = list(positions(tuple(item.shape[:-1])))
        tokens = [
            linear(parameters, "qkv", item[p]).split([mixer.key_dim, mixer.key_dim, mixer.value_dim]) for p in places
        ]
        gathered = []
        for channel in range(mixer.key_dim):
            shares = softmax([key[channel] for _, key, _ in tokens])
            gathered.append(sum(share * value for share, (_, _, value) in zip(shares, tokens, strict=True)))
        for query, _, _ in tokens:
            choice = softmax(list(query))
            mixed = sum(share * vector for share, vector in zip(choice, gathered, strict=True))
            rows.append(linear(parameters, "proj", mixed))
    return torch.stack(rows).reshape(x.shape)


@pytest.mark.parametrize("grid", [(5,), (3, 4), (2, 2, 3)], ids=str)
def test_equals_loops(grid: tuple[int, ...]) -> None:
    mixer = randomised(DoubleAttention(8, key_dim=3, value_dim=5))
    assert_equals_naive(mixer, lambda parameters, x: naive_attention(mixer, parameters, x), {"x": tensor(2, *grid, 8)})


def test_widths_are_a_quarter_as_published() -> None:
    mixer = DoubleAttention(64)
    assert (mixer.key_dim, mixer.value_dim, mixer.num_heads) == (16, 16, 1)


@pytest.mark.parametrize("case", golden("attention", "a2"))
def test_golden(case: Golden) -> None:
    """k consecutive images are the frames of one clip, gathered jointly; no projection behind."""
    sizes = dict(zip(("in_channels", "c_m", "c_n"), case.args, strict=False)) | case.kwargs
    inputs, params = case.leaves("in"), case.leaves("param")
    frames = sizes.get("k", 1)
    clips = inputs["x"].unflatten(0, (-1, frames))  # [B, k, C, H, W]
    features, keys, queries = (
        F.conv2d(clips.flatten(0, 1), params[f"conv{name}.weight"], params[f"conv{name}.bias"])
        .unflatten(0, (-1, frames))
        .movedim(2, -1)
        .flatten(1, 3)
        .unsqueeze(1)  # [B, 1, k * H * W, channels]
        for name in "ABV"
    )
    mixer = DoubleAttention(sizes["in_channels"], key_dim=sizes["c_n"], value_dim=sizes["c_m"])
    grid = (frames, *inputs["x"].shape[2:])
    out = mixer.attend(queries, keys, features, grid, grid).squeeze(1)
    out = out.reshape(-1, *grid, out.shape[-1]).flatten(0, 1).movedim(-1, 1)
    assert_golden(case, out, inputs, params, tol=1e-10)

"""Templates of efficient attention, and windows put back together, against loops over the full matrix."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.naive import random_mask, randomised, tensor
from visionattn.analysis.attention_maps import middle_queries, stitched_window_maps, template_maps, template_shares
from visionattn.analysis.attention_matrix import attention_matrix
from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.window import WindowAttention
from visionattn.attention.window_v2 import WindowAttentionV2

DIM = 16


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_templates_are_softmaxes_over_positions(temperature: float) -> None:
    mixer = EfficientAttention(DIM, num_heads=2, key_dim=6, temperature=temperature)
    randomised(mixer)
    x, mask = tensor(2, 3, 5, DIM), random_mask(2, 3, 5)
    templates = template_maps(mixer, x, mask=mask)
    assert templates.shape == (2, 2, 3, 3, 5)
    keys = (x.flatten(1, 2) @ mixer.qkv.weight.T + mixer.qkv.bias)[..., 6:12]
    for image in range(2):
        for channel in range(6):
            scores = [
                keys[image, m, channel] / temperature if mask[image].flatten()[m] else torch.tensor(-math.inf).double()
                for m in range(15)
            ]
            ours = templates[image, channel // 3, channel % 3].flatten()
            torch.testing.assert_close(ours, torch.stack(scores).softmax(0), rtol=1e-10, atol=1e-12)


def test_a_query_s_map_is_its_shares_of_the_templates() -> None:
    mixer = EfficientAttention(DIM, num_heads=4)
    randomised(mixer)
    x, context = tensor(1, 4, 5, DIM), tensor(1, 3, 7, DIM, seed=1)
    templates, shares = template_maps(mixer, x, context).flatten(3), template_shares(mixer, x, context).flatten(3)
    assert (templates.shape, shares.shape) == ((1, 4, 4, 21), (1, 4, 4, 20))
    torch.testing.assert_close(shares.mT @ templates, attention_matrix(mixer, x, context), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(shares.sum(2), torch.ones(1, 4, 20, dtype=torch.float64))
    with pytest.raises(ValueError, match="normalize_queries=False"):
        template_shares(EfficientAttention(DIM, normalize_queries=False).double(), x)


@pytest.mark.parametrize("kind", [WindowAttention, WindowAttentionV2])
@pytest.mark.parametrize(
    ("grid", "options"),
    [
        ((6, 9), {"window": (3, 3)}),
        ((7, 10), {"window": (3, 4), "shift": (1, 2)}),
        ((5, 8), {"window": (4, 4), "shift": (2, 2), "mask_padding": False}),
        ((11,), {"window": (4,), "shift": (2,)}),
    ],
)
def test_stitched_maps_are_each_window_s_own_row(
    kind: type[WindowAttention], grid: tuple[int, ...], options: dict[str, Any]
) -> None:
    mixer = kind(DIM, num_heads=2, **options)
    randomised(mixer)
    x = tensor(2, *grid, DIM)
    stitched = stitched_window_maps(mixer, x)
    assert stitched.shape == (2, 2, *grid)
    weights = attention_matrix(mixer, x)  # [B, heads, N, N], zero between windows
    middles = middle_queries(mixer._layout(grid, x.device))
    assert len(set(middles)) == len(middles)
    expected = torch.zeros(2, 2, math.prod(grid), dtype=torch.float64)
    reached = torch.zeros(math.prod(grid), dtype=torch.long)
    for middle in middles:
        reached += weights[0, 0, middle] > 0
        expected += weights[:, :, middle]
    assert (reached == 1).all(), "a position is in no window, or in two"
    torch.testing.assert_close(stitched.flatten(2), expected, rtol=1e-10, atol=1e-12)


def test_the_middle_of_a_window_is_in_the_middle() -> None:
    mixer = WindowAttention(DIM, num_heads=2, window=(3, 5))
    assert middle_queries(mixer._layout((3, 10), torch.device("cpu"))) == [12, 17]
    shifted = WindowAttention(DIM, num_heads=2, window=(4,), shift=(2,))
    # Windows 2-5 and 6-7 with 0-1: the last one has two sides.
    middles = sorted(middle_queries(shifted._layout((8,), torch.device("cpu"))))
    assert len(middles) == 3
    assert [middles[0] in (0, 1), middles[1] in (3, 4), middles[2] in (6, 7)] == [True, True, True]

"""Convex upsampling and the positions and averages of GMStereo, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from naive import tensor

from visionattn.ops.convex_upsampling import convex_upsampling
from visionattn.ops.propagation import locally_propagated_disparity, propagated_disparity
from visionattn.ops.sine_position import sine_position


def test_every_fine_pixel_weighs_the_coarse_ones_around_it() -> None:
    disparity, logits = tensor(2, 3, 4), tensor(2, 9 * 4, 3, 4, seed=1)
    found = convex_upsampling(disparity, logits, 2)
    assert found.shape == (2, 6, 8)
    for b in range(2):
        for y in range(6):
            for x in range(8):
                row, column = y // 2, x // 2
                weights = [logits[b, k * 4 + y % 2 * 2 + x % 2, row, column].exp().item() for k in range(9)]
                wanted = 0.0
                for k, weight in enumerate(weights):
                    i, j = row + k // 3 - 1, column + k % 3 - 1
                    wanted += weight * (2 * disparity[b, i, j].item() if 0 <= i < 3 and 0 <= j < 4 else 0.0)
                assert math.isclose(found[b, y, x].item(), wanted / sum(weights), rel_tol=1e-9, abs_tol=1e-12)
    with pytest.raises(ValueError, match="upsampling by 4 takes 144 channels of logits, got 36"):
        convex_upsampling(disparity, logits, 4)


def test_disparities_are_propagated_by_likeness() -> None:
    disparity, query, key = tensor(2, 3, 4), tensor(2, 3, 4, 5, seed=1), tensor(2, 3, 4, 5, seed=2)
    everywhere, around = propagated_disparity(disparity, query, key), None
    around = locally_propagated_disparity(disparity, query, key, 1)
    places = [(y, x) for y in range(3) for x in range(4)]
    for b in range(2):
        for y, x in places:
            logit = {place: (query[b, y, x] @ key[b][place]).item() / math.sqrt(5) for place in places}
            weights = {place: math.exp(value) for place, value in logit.items()}
            wanted = sum(weights[place] * disparity[b][place].item() for place in places) / sum(weights.values())
            assert math.isclose(everywhere[b, y, x].item(), wanted, rel_tol=1e-9)
            near = [(y + j, x + i) for j in (-1, 0, 1) for i in (-1, 0, 1)]
            total = sum(weights.get(place, 1.0) for place in near)  # outside, the logit is 0
            wanted = sum(weights[place] * disparity[b][place].item() for place in near if place in weights) / total
            assert math.isclose(around[b, y, x].item(), wanted, rel_tol=1e-9)


def test_half_precision_does_not_round_the_disparity() -> None:
    disparity = 100 + torch.rand(1, 4, 6)
    features = torch.zeros(1, 4, 6, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = propagated_disparity(disparity, features, features)
        fine = convex_upsampling(disparity, torch.zeros(1, 36, 4, 6, dtype=torch.bfloat16), 2)
    assert found.dtype == fine.dtype == torch.float32
    torch.testing.assert_close(found, disparity.mean().expand(1, 4, 6))
    assert math.isclose(fine[0, 2, 2].item(), 2 * disparity[0, :3, :3].mean().item(), rel_tol=1e-6)


def test_gradients() -> None:
    disparity, query, key = (
        t.requires_grad_() for t in (tensor(1, 3, 2), tensor(1, 3, 2, 3, seed=1), tensor(1, 3, 2, 3, seed=2))
    )
    logits = tensor(1, 36, 3, 2, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: convex_upsampling(*t, 2), (disparity, logits))
    assert torch.autograd.gradcheck(propagated_disparity, (disparity, query, key))
    assert torch.autograd.gradcheck(lambda *t: locally_propagated_disparity(*t, 1), (disparity, query, key))


def test_sine_position() -> None:
    found = sine_position(3, 5, 16)
    assert found.shape == (3, 5, 16)
    for y in range(3):
        for x in range(5):
            for half, place, extent in ((0, y, 3), (8, x, 5)):
                for pair in range(4):
                    angle = 2 * math.pi * (place + 1) / (extent + 1e-6) / 10000 ** (2 * pair / 8)
                    assert math.isclose(found[y, x, half + 2 * pair], math.sin(angle), abs_tol=1e-5)
                    assert math.isclose(found[y, x, half + 2 * pair + 1], math.cos(angle), abs_tol=1e-5)
    with pytest.raises(ValueError, match="a multiple of 4 channels, got 6"):
        sine_position(3, 5, 6)

"""Matching along rows, against loops over positions."""

from __future__ import annotations

import math

import torch
from naive import tensor

from visionattn.ops.row_matching import global_row_disparity, local_row_disparity, row_correlation


def test_row_correlation_is_the_scaled_product_of_every_pair_of_a_row() -> None:
    left, right = tensor(2, 5, 3, 7), tensor(2, 5, 3, 4, seed=1)
    found = row_correlation(left, right)
    for b in range(2):
        for y in range(3):
            for x in range(7):
                for other in range(4):
                    wanted = (left[b, :, y, x] * right[b, :, y, other]).sum() / math.sqrt(5)
                    torch.testing.assert_close(found[b, y, x, other], wanted)


def test_global_row_disparity_sees_what_lies_at_or_left_of_x() -> None:
    left, right = tensor(2, 5, 3, 7), tensor(2, 5, 3, 7, seed=1)
    found = global_row_disparity(left, right)
    for b in range(2):
        for y in range(3):
            for x in range(7):
                weights = [math.exp((left[b, :, y, x] @ right[b, :, y, o]).item() / math.sqrt(5)) for o in range(x + 1)]
                wanted = sum((x - other) * weight for other, weight in enumerate(weights)) / sum(weights)
                assert math.isclose(found[b, y, x].item(), wanted, rel_tol=1e-9, abs_tol=1e-9)
    assert torch.equal(found[:, :, 0], torch.zeros(2, 3, dtype=torch.float64))


def test_local_row_disparity_leaves_out_what_is_outside() -> None:
    left, right = tensor(2, 5, 3, 7), tensor(2, 5, 3, 7, seed=1)
    found = local_row_disparity(left, right, 2)
    for b in range(2):
        for y in range(3):
            for x in range(7):
                weights = {
                    offset: math.exp((left[b, :, y, x] @ right[b, :, y, x + offset]).item() / math.sqrt(5))
                    for offset in range(-2, 3)
                    if 0 <= x + offset < 7
                }
                wanted = sum(-offset * weight for offset, weight in weights.items()) / sum(weights.values())
                assert math.isclose(found[b, y, x].item(), wanted, rel_tol=1e-9, abs_tol=1e-9)


def test_a_shifted_row_is_matched_at_its_shift() -> None:
    row = 40 * torch.eye(16, dtype=torch.float64).view(1, 16, 1, 16)
    left = torch.roll(row, 3, dims=3)  # x_right = x_left - 3
    torch.testing.assert_close(global_row_disparity(left, row)[..., 3:], torch.full((1, 1, 13), 3.0).double())
    torch.testing.assert_close(local_row_disparity(left, row, 4)[..., 3:], torch.full((1, 1, 13), 3.0).double())


def test_gradients() -> None:
    maps = [tensor(1, 3, 2, 5, seed=seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(global_row_disparity, maps)
    assert torch.autograd.gradcheck(lambda *views: local_row_disparity(*views, 2), maps)


def test_half_precision_is_matched_in_float32() -> None:
    left, right = (tensor(1, 8, 2, 70, seed=seed).bfloat16() for seed in (0, 1))
    for match in (global_row_disparity, lambda *views: local_row_disparity(*views, 3)):
        found = match(left, right)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, match(left.double(), right.double()).float(), rtol=1e-4, atol=1e-4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(match(left, right), found)

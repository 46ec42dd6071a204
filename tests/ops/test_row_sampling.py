"""Reading rows between positions, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from naive import tensor
from torch import Tensor

from visionattn.ops.row_sampling import row_windows, warp_by_disparity


def at(row: Tensor, position: float) -> float:
    """The row [W] at a position, zeros outside."""
    first = math.floor(position)
    share = position - first
    value = [row[i].item() if 0 <= i < len(row) else 0.0 for i in (first, first + 1)]
    return (1 - share) * value[0] + share * value[1]


def positions(*shape: int, seed: int = 3) -> Tensor:
    """Inside, outside, whole and just at the border."""
    found = 3 + 4 * tensor(*shape, seed=seed)
    found.view(-1)[:4] = torch.tensor([0.0, -0.25, 6.0, 6.5])
    return found


def test_row_windows() -> None:
    rows, centre = tensor(2, 3, 5, 7), positions(2, 3, 5)
    found = row_windows(rows, centre, 2)
    assert found.shape == (2, 3, 5, 5)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in (2, 3, 5))).tolist():
        wanted = [at(rows[tuple(index)], centre[tuple(index)].item() + offset) for offset in range(-2, 3)]
        torch.testing.assert_close(found[tuple(index)], torch.tensor(wanted).double())


def test_warp_by_disparity() -> None:
    right, disparity = tensor(2, 3, 4, 7), 2 * tensor(2, 4, 7, seed=1)
    found = warp_by_disparity(right, disparity)
    for b in range(2):
        for c in range(3):
            for y in range(4):
                wanted = [at(right[b, c, y], x - disparity[b, y, x].item()) for x in range(7)]
                torch.testing.assert_close(found[b, c, y], torch.tensor(wanted).double())
    whole = torch.full((2, 4, 7), 2.0)
    assert torch.equal(warp_by_disparity(right, whole)[..., 2:], right[..., :-2])
    assert not warp_by_disparity(right, whole)[..., :2].any()


def test_gradients() -> None:
    right = tensor(1, 3, 2, 5).requires_grad_()
    where = (1.3 + tensor(1, 2, 5, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda rows, centre: row_windows(rows, centre, 1), (right[:, 0], where[..., 0]))
    assert torch.autograd.gradcheck(warp_by_disparity, (right, where))


def test_positions_stay_float32_under_half_precision() -> None:
    right, disparity = tensor(1, 2, 2, 600).bfloat16(), torch.full((1, 2, 600), 0.5, dtype=torch.bfloat16)
    wide = right.float()
    wanted = 0.5 * (wide[..., 400:] + wide[..., 399:-1])  # bfloat16 knows no 400.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = warp_by_disparity(right, disparity)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found[..., 400:].float(), wanted, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("far", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_positions_that_are_none_read_no_memory(far: float) -> None:
    rows = torch.ones(1, 2, 4)
    found = row_windows(rows, torch.tensor([[far, 1.0]]), 1)
    assert torch.equal(found[0, 1], torch.ones(3))
    assert not torch.isfinite(found[0, 0]).all() or not found[0, 0].any()

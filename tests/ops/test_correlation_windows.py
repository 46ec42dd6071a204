"""Windows of correlations made row by row, against those of whole rows, and grid_sample."""

from __future__ import annotations

import math

import pytest
import torch
from naive import tensor
from torch import Tensor
from torch.nn import functional as F

from visionattn.analysis.memory import saved_bytes
from visionattn.ops import correlation_windows as module
from visionattn.ops.correlation_windows import correlation_windows, local_correlation
from visionattn.ops.row_matching import row_correlation
from visionattn.ops.row_sampling import row_windows

BATCH, CHANNELS, HEIGHT, WIDTH, OTHER = 2, 5, 5, 6, 7
ROW_BYTES = BATCH * WIDTH * OTHER * 8


@pytest.fixture(params=[1, 2 * ROW_BYTES, 2**23], ids=["a row", "two rows", "all rows"])
def _at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are correlated at once; two leave a rest of the five."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", request.param)


def arguments() -> tuple[Tensor, Tensor, Tensor]:
    left = tensor(BATCH, CHANNELS, HEIGHT, WIDTH).requires_grad_()
    right = tensor(BATCH, CHANNELS, HEIGHT, OTHER, seed=1).requires_grad_()
    return left, right, (3 + 4 * tensor(BATCH, HEIGHT, WIDTH, seed=2)).requires_grad_()


def whole(left: Tensor, right: Tensor, centre: Tensor, radius: int) -> Tensor:
    return row_windows(row_correlation(left, right), centre, radius)


@pytest.mark.usefixtures("_at_once")
def test_they_are_windows_of_the_row_correlation_and_so_are_the_gradients() -> None:
    given = arguments()
    weight = tensor(BATCH, HEIGHT, WIDTH, 5, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(correlation_windows(*given, 2), whole(*given, 2))
    results = [form(*given, 2) for form in (correlation_windows, whole)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad((result * weight).sum(), given) for result in results))
    (found,) = torch.autograd.grad(correlation_windows(*given, 2).sum(), given[1])
    torch.testing.assert_close(found, torch.autograd.grad(whole(*given, 2).sum(), given[1])[0])


def test_nothing_but_the_arguments_is_kept_for_the_backward() -> None:
    given = arguments()
    assert not saved_bytes(lambda: correlation_windows(*given, 2), given).total()
    assert saved_bytes(lambda: whole(*given, 2), given).total() > ROW_BYTES * HEIGHT


def test_half_precision_is_correlated_in_float32() -> None:
    left, right, centre = (t.detach() for t in arguments())
    wanted = whole(left, right, centre, 2).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = correlation_windows(left.float(), right.float(), centre.float(), 2)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    half = [t.bfloat16().requires_grad_() for t in (left, right)]
    found = correlation_windows(*half, centre.float(), 2)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert {t.grad.dtype for t in half} == {torch.bfloat16}


def test_local_correlation_is_what_grid_sample_reads() -> None:
    left, right = tensor(2, 5, 4, 7), tensor(2, 5, 4, 7, seed=1)
    disparity = 2 * tensor(2, 4, 7, seed=2)
    found = local_correlation(left, right, disparity, 1)
    y, x = torch.meshgrid(torch.arange(4.0).double(), torch.arange(7.0).double(), indexing="ij")
    wanted = []
    for j in (-1, 0, 1):
        for i in (-1, 0, 1):
            grid = torch.stack([2 * (x - disparity + i) / 6 - 1, (2 * (y + j) / 3 - 1).expand(2, 4, 7)], dim=-1)
            sampled = F.grid_sample(right, grid, align_corners=True)
            wanted.append((left * sampled).sum(1) / math.sqrt(5))
    torch.testing.assert_close(found, torch.stack(wanted, dim=1))


def test_gradients_of_the_local_correlation() -> None:
    left, right = (tensor(1, 3, 2, 5, seed=seed).requires_grad_() for seed in (0, 1))
    disparity = (1.3 + tensor(1, 2, 5, seed=2)).requires_grad_()
    assert torch.autograd.gradcheck(lambda *given: local_correlation(*given, 1), (left, right, disparity))

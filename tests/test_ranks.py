"""The processes that tests fork work whatever ran before them in the process of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import in_ranks
from torch._subclasses.fake_tensor import FakeTensorMode


@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="autograd has threads for the GPU")
def test_a_rank_calls_backward_after_a_backward_after_a_fake_tensor(tmp_path: Path) -> None:
    def slope(rank: int) -> torch.Tensor:
        x = torch.tensor(3.0 + rank, requires_grad=True)
        x.square().backward()
        return x.grad

    with FakeTensorMode():
        torch.zeros(1)
    assert slope(0) == 6
    assert [rank.result.item() for rank in in_ranks(slope, tmp_path)] == [6, 8]

"""The ops under DistributedDataParallel: two processes of gloo, each with an image of a batch of two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from ranks import in_ranks
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from visionattn.attention.build import build_attention
from visionattn.ops.kernels import dispatch

# The mechanism, the op, a map's grid, and the modules that ask whether there are kernels.
CASES = {
    "the core": ("EfficientAttention", "efficient_attention", (3, 5), ("ops.efficient_attention",)),
    "linear": ("LinearAttention", "feature_attention", (3, 5), ("ops.feature_attention",)),
    "folded": (
        "EfficientAttention",
        "folded_attention",
        (16, 17),
        ("attention.efficient", "ops.folded_efficient_attention"),
    ),
}


def gradients(mixer: torch.nn.Module, x: Tensor) -> list[Tensor]:
    mixer(x).square().mean().backward()
    return [parameter.grad for parameter in mixer.parameters()]


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_whole_batch(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, op, grid, asking = CASES[case]
    torch.manual_seed(0)
    mixer, x = build_attention({"type": name, "num_heads": 2}, 8), torch.randn(2, *grid, 8)
    called: list[str] = []
    # As on a GPU: the mechanism takes its op, whose eager twin answers on the CPU.
    monkeypatch.setattr(dispatch, "_unready", lambda device: None)
    for module in asking:
        monkeypatch.setattr(f"visionattn.{module}.asked_for", lambda t: True)
    monkeypatch.setattr(f"visionattn.ops.kernels.{op}.asked_for", lambda t: called.append(op))

    def train(rank: int) -> tuple[list[Tensor], int]:
        dist.init_process_group("gloo")
        try:
            parallel = DistributedDataParallel(mixer)
            return gradients(parallel, x[rank : rank + 1]), len(called)
        finally:
            dist.destroy_process_group()

    ranks = in_ranks(train, tmp_path)
    monkeypatch.undo()
    expected = gradients(mixer, x)
    for rank in ranks:
        found, calls = rank.result
        assert calls == 2  # forward and backward
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)

"""The ops in CUDA graphs, forward and backward: captured once, replayed on other numbers. Not yet run on a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from gpu_checks import ON_GPU
from torch import Tensor, nn

from visionattn.attention.build import build_attention

pytestmark = ON_GPU
MECHANISMS = ("EfficientAttention", "DoubleAttention", "LinearAttention", "Performer")


def step(mixer: nn.Module, x: Tensor) -> list[Tensor]:
    """The answer and every gradient."""
    leaf = x.detach().clone().requires_grad_()
    out = mixer(leaf)
    return [out.detach().clone(), *torch.autograd.grad(out.square().sum(), [leaf, *mixer.parameters()])]


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_training_step_in_a_graph(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    plain = build_attention(name, 64).to("cuda", dtype)
    sample, *others = (torch.randn(2, 31, 33, 64, device="cuda", dtype=dtype) for _ in range(3))
    captured = torch.cuda.make_graphed_callables(copy.deepcopy(plain), (sample.requires_grad_(),))
    for x in others:
        # The same kernels on the same numbers, and none of them adds atomically: bit for bit.
        assert all(torch.equal(a, b) for a, b in zip(step(captured, x), step(plain, x), strict=True))

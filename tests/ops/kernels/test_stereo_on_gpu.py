"""The stereo kernels on a CUDA device: precision against plain PyTorch, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import interpreted_stereo as program
import pytest
import torch
from gpu_checks import (
    DTYPES,
    ON_GPU,
    assert_as_exact_as_plain_pytorch,
    assert_compiles_and_is_captured,
    assert_repeats_are_bit_equal,
    each_case,
)
from torch import Tensor, nn

from visionattn.stereo.shortcuts import VolumeConvolution, correlation_volume, full_disparity

pytestmark = ON_GPU
PLANES, HEIGHT, WIDTH = 48, 32, 100


def cases() -> dict[str, program.Case]:
    """The interpreter's plain cases, and volumes of real sizes: every kernel is compiled for each of its constants."""
    large = {
        f"{kind} of a real size, {order}, {dtype}": case._replace(order=order, dtype=dtype)
        for kind, case in {
            "correlation": program.correlation(2, 320, 40, HEIGHT, WIDTH, PLANES),
            "assembly": program.assembly(2, 32, HEIGHT, WIDTH, PLANES),
            "regression": program.regression((2, PLANES, HEIGHT, WIDTH), (4 * PLANES, 4 * HEIGHT, 4 * WIDTH)),
            "aligned": program.regression((2, PLANES, HEIGHT, WIDTH), (4 * PLANES, 4 * HEIGHT, 4 * WIDTH), True),
        }.items()
        for order in ("contiguous", "channels last")
        for dtype in DTYPES
    }
    return program.CASES["plain"] | large


@each_case((program.measure, cases()))
def test_error_at_most_twice_that_of_plain_pytorch(measure: Callable[..., dict[str, float]], case: Any) -> None:
    assert_as_exact_as_plain_pytorch(measure, case)


class Layers(nn.Module):
    """The three layers of a volume network that have kernels, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = VolumeConvolution(4, 12, 8, PLANES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        costs = correlation_volume(left, right, PLANES, 4)
        volume = self.first((costs, left, right))
        return full_disparity(volume[:, :1], 4 * PLANES, 4 * HEIGHT, 4 * WIDTH, align_corners=False)


def layers(dtype: torch.dtype) -> tuple[Layers, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 12, HEIGHT, WIDTH, device="cuda", dtype=dtype)
    return Layers().to("cuda", dtype), tuple(t.requires_grad_() for t in maps.unbind())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["correlation", "assembly", "regression"])
def test_repeats_are_bit_equal(name: str, dtype: torch.dtype) -> None:
    """Of the kernels, forward and backward; cuDNN's own convolutions need not repeat."""
    case = next(c for n, c in cases().items() if n.startswith(f"{name} of a real size") and c.dtype == dtype)
    inputs = [program.laid_out(shape, case, seed, "cuda") for seed, shape in enumerate(case.shapes)]
    assert_repeats_are_bit_equal(lambda: program.run(case, inputs, program.OPS[name].call))


def test_compiled_and_in_a_cuda_graph() -> None:
    net, maps = layers(torch.float32)
    assert_compiles_and_is_captured(net, *maps, rtol=1e-3, atol=1e-2)


def test_autocast_trains() -> None:
    net, maps = layers(torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = net(*maps)
    assert out.dtype == torch.float32
    gradients = torch.autograd.grad(out.mean(), [*maps, *net.parameters()])
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)

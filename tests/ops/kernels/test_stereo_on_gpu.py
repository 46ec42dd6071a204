"""The stereo kernels on a CUDA device: precision against plain PyTorch, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

import interpreted_stereo as program
import pytest
import torch
from torch import Tensor, nn

from visionattn.stereo.shortcuts import VolumeConvolution, correlation_volume, full_disparity

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
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


def test_error_at_most_twice_that_of_plain_pytorch() -> None:
    wrong = {}
    for name, case in cases().items():
        found = program.measure(case, with_loops=False, device="cuda")
        floor = max(2e-6, torch.finfo(case.dtype).eps)
        for kind, size in found.items():
            if kind.startswith("twin"):
                continue
            allowed = max(2 * found[kind.replace("kernel", "twin")], floor) if kind.startswith("kernel") else 0.0
            if not size <= allowed:
                wrong[f"{name}: {kind}"] = size
    assert not wrong


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
    runs = [program.run(case, inputs, program.OPS[name].call) for _ in range(3)]
    assert all(torch.equal(a, b) for again in runs[1:] for a, b in zip(runs[0], again, strict=True))


def test_compiled_and_in_a_cuda_graph() -> None:
    net, maps = layers(torch.float32)
    with torch.no_grad():
        expected = net(*maps)
        compiled = torch.compile(net, fullgraph=True)
        torch.testing.assert_close(compiled(*maps), expected, rtol=1e-3, atol=1e-2)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = net(*maps)
        graph.replay()
    torch.testing.assert_close(out, expected)


def test_autocast_trains() -> None:
    net, maps = layers(torch.float32)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = net(*maps)
    assert out.dtype == torch.float32
    gradients = torch.autograd.grad(out.mean(), [*maps, *net.parameters()])
    assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)

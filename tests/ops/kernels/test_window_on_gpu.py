"""Window attention's kernels on a CUDA device: precision, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

from typing import Any

import interpreted_window_attention as program
import pytest
import torch

from visionattn.attention.build import build_attention
from visionattn.ops.kernels.dispatch import why_not_windows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
MECHANISMS = ("WindowAttention", "WindowAttentionV2")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
WINDOWS = ((7, 7), (8, 8), (12, 12), (16, 16), (7, 14))


def cases() -> dict[str, program.Case]:
    """Every case of the interpreter, and maps of real sizes."""
    large = {
        f"{window}, {width}, {dtype}, cosine={cosine}": program.Case(
            (61, 67),
            window,
            (window[0] // 2, window[1] // 2),
            width,
            heads=3,
            cosine=cosine,
            mask_padding=False,
            dtype=dtype,
        )
        for window in WINDOWS
        for width in (16, 32, 64)
        for dtype in DTYPES
        for cosine in (False, True)
    }
    return program.CASES["plain"] | program.CASES["slow"] | large


def make(name: str, window: tuple[int, int], **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    shift = tuple(length // 2 for length in window)
    cfg = {"type": name, "num_heads": 3, "window": window, "shift": shift, "mask_padding": False, **options}
    return build_attention(cfg, 96)


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


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_are_bit_equal(name: str, window: tuple[int, int], dtype: torch.dtype) -> None:
    """The gradients of the bias too."""
    mixer = make(name, window).to("cuda", dtype)
    x = torch.randn(2, 61, 67, 96, device="cuda", dtype=dtype)
    runs = [[out := mixer(x), *torch.autograd.grad(out.sum(), list(mixer.parameters()))] for _ in range(3)]
    assert all(torch.equal(a, b) for again in runs[1:] for a, b in zip(runs[0], again, strict=True))


@pytest.mark.parametrize("name", MECHANISMS)
def test_compiled_and_in_a_cuda_graph(name: str) -> None:
    mixer = make(name, (7, 7)).cuda().eval()
    x = torch.randn(2, 31, 33, 96, device="cuda")
    assert why_not_windows(torch.randn(2, 31, 33, 3, 3, 32, device="cuda"), None, (7, 7)) is None
    with torch.no_grad():
        expected = mixer(x)
        compiled = torch.compile(mixer, fullgraph=True)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-5)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = mixer(x)
        graph.replay()
    torch.testing.assert_close(out, expected)

"""Window attention's kernels on a CUDA device: precision, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import interpreted_window_attention as program
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

from visionattn.attention.build import build_attention
from visionattn.ops.kernels.dispatch import why_not_windows

pytestmark = ON_GPU
MECHANISMS = ("WindowAttention", "WindowAttentionV2")
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


@each_case((program.measure, cases()))
def test_error_at_most_twice_that_of_plain_pytorch(measure: Callable[..., dict[str, float]], case: Any) -> None:
    assert_as_exact_as_plain_pytorch(measure, case)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_are_bit_equal(name: str, window: tuple[int, int], dtype: torch.dtype) -> None:
    """The gradients of the bias too."""
    mixer = make(name, window).to("cuda", dtype)
    x = torch.randn(2, 61, 67, 96, device="cuda", dtype=dtype)
    assert_repeats_are_bit_equal(lambda: [out := mixer(x), *torch.autograd.grad(out.sum(), list(mixer.parameters()))])


@pytest.mark.parametrize("name", MECHANISMS)
def test_compiled_and_in_a_cuda_graph(name: str) -> None:
    mixer = make(name, (7, 7)).cuda().eval()
    x = torch.randn(2, 31, 33, 96, device="cuda")
    assert why_not_windows(torch.randn(2, 31, 33, 3, 3, 32, device="cuda"), None, (7, 7)) is None
    assert_compiles_and_is_captured(mixer, x)

"""The kernels on a CUDA device: precision against plain PyTorch, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import interpreted_efficient_attention
import interpreted_feature_attention
import interpreted_folded_attention
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
from kernel_cases import ORDERS

from visionattn.attention.build import build_attention
from visionattn.ops.kernels.dispatch import why_not

pytestmark = ON_GPU
PROGRAMS = (interpreted_efficient_attention, interpreted_feature_attention, interpreted_folded_attention)
MECHANISMS = ("EfficientAttention", "DoubleAttention", "LinearAttention", "Performer")


def cases(program: ModuleType) -> dict[str, Any]:
    """Every case of the interpreter, and maps of real sizes."""
    small = program.CASES["plain"] | program.CASES["slow"]
    if program is interpreted_folded_attention:
        return small | folded_cases()
    sizes: list[dict[str, int]] = [{"width": 64, "values": 64, "heads": 8}, {"width": 128, "values": 128, "heads": 1}]
    if program is interpreted_feature_attention:
        sizes.append({"width": 64, "values": 64, "heads": 8, "features": 266})
    large = {
        f"{order}, {dtype}, {size}": program.Case(4096, 4096, order=order, dtype=dtype, **size)
        for order in ORDERS
        for dtype in DTYPES
        for size in sizes
    }
    return small | large


def folded_cases() -> dict[str, interpreted_folded_attention.Case]:
    """Maps of real sizes, in float32 as wide as it is served."""
    sizes = {"64": (64, 64, 64, 8), "128": (128, 128, 128, 1)}
    halves = {
        f"{order}, {dtype}, {name} channels, wide maps: {wide}": interpreted_folded_attention.Case(
            4096, *size, order=order, dtype=dtype, wide_maps=wide, scaled=True
        )
        for order in interpreted_folded_attention.ORDERS
        for dtype in DTYPES[1:]
        for name, size in sizes.items()
        for wide in (False, True)
    }
    return halves | {"float32": interpreted_folded_attention.Case(4096, 64, 32, 64, 4)}


@each_case(*((program.measure, cases(program)) for program in PROGRAMS))
def test_error_at_most_twice_that_of_plain_pytorch(measure: Callable[..., dict[str, float]], case: Any) -> None:
    assert_as_exact_as_plain_pytorch(measure, case)


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_repeats_are_bit_equal(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mixer = build_attention({"type": name, "num_heads": 2}, 128).to("cuda", dtype)
    x = torch.randn(2, 61, 67, 128, device="cuda", dtype=dtype)
    assert_repeats_are_bit_equal(lambda: [out := mixer(x), *torch.autograd.grad(out.sum(), list(mixer.parameters()))])


@pytest.mark.parametrize("name", MECHANISMS)
def test_compiled_and_in_a_cuda_graph(name: str) -> None:
    torch.manual_seed(0)
    mixer = build_attention(name, 64).cuda().eval()
    x = torch.randn(2, 31, 33, 64, device="cuda")
    q = torch.randn(2, 1, 5, 64, device="cuda")
    assert why_not("efficient_attention", q, q, q) is None
    assert_compiles_and_is_captured(mixer, x)

"""Precision of sums: half precisions are widened, and no device is refused."""

from __future__ import annotations

import pytest
import torch

from visionattn.attention.build import build_attention
from visionattn.ops.precision import at_least_float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_only_half_precisions_are_widened(dtype: torch.dtype) -> None:
    widened = at_least_float32(torch.ones(2, dtype=dtype)).dtype
    assert widened == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    "name", ["EfficientAttention", "ScaledEfficientAttention", "NonLocal", "NonLocalConcatenation"]
)
def test_a_model_without_memory_has_shapes(name: str) -> None:
    with torch.device("meta"):
        mixer = build_attention(name, 8)
        assert mixer(torch.empty(2, 5, 7, 8)).shape == (2, 5, 7, 8)

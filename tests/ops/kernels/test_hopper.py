"""Registers, spills and shared memory of every kernel, compiled for sm_90 without a GPU."""

from __future__ import annotations

import pytest
import torch
from hopper import LARGEST_SHARED, Resources, compiled
from torch import Tensor

pytestmark = pytest.mark.slow

HALF, FULL = torch.bfloat16, torch.float32
WIDTHS = ((32, 32), (64, 64), (128, 256))  # channels per head of q and k, and of v


def judge(found: dict[str, Resources], kernels: int, *, spilled: int = 0) -> None:
    """Raises unless so many kernels stay within the device's limits and spill at most so many bytes per thread."""
    assert len(found) == kernels
    limits = Resources(registers=255, spilled=spilled, shared=LARGEST_SHARED)
    wrong = {name: took for name, took in found.items() if any(a > b for a, b in zip(took, limits, strict=True))}
    assert not wrong


def tensors(dtype: torch.dtype, width: int, values: int) -> tuple[Tensor, Tensor, Tensor]:
    """q (and k), v and a mask of 4096 tokens, two heads of two images; only their kinds matter."""
    q, v = (torch.empty(2, 4096, 2, channels, dtype=dtype).transpose(1, 2) for channels in (width, values))
    return q, v, torch.ones(2, 4096, dtype=torch.bool)


@pytest.mark.parametrize("dtype", [HALF, FULL])
@pytest.mark.parametrize(("width", "values"), WIDTHS)
def test_efficient_attention(dtype: torch.dtype, width: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import efficient_attention_triton as kernels
    from visionattn.ops.kernels import efficient_attention_triton_backward as backward

    q, v, mask = tensors(dtype, width, values)
    context, log_total = torch.empty(2, 2, width, values), torch.empty(2, 2, width)

    def launch() -> None:
        kernels.forward(q, q, v, mask, 1.0, True)
        backward.backward(v, q, q, v, mask, context, log_total, 1.0, True)

    judge(compiled(launch, monkeypatch), kernels=6)


@pytest.mark.parametrize("dtype", [HALF, FULL, torch.float16])
@pytest.mark.parametrize(("width", "features"), [(64, 0), (128, 0), (32, 110), (64, 266)])
def test_feature_attention(dtype: torch.dtype, width: int, features: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from visionattn.ops.kernels import feature_attention_triton as kernels
    from visionattn.ops.kernels import feature_attention_triton_backward as backward

    q, v, mask = tensors(dtype, width, width)
    projection = torch.empty(features, width) if features else None

    def launch() -> None:
        saved = kernels.forward(q, q, v, projection, mask)
        backward.backward(v, q, q, v, projection, mask, *saved)

    # Linear attention's backward holds a context of 128 x 128: it spills, as docs/kernels.md says.
    judge(compiled(launch, monkeypatch), kernels=5, spilled=0 if features or width < 128 else 1024)

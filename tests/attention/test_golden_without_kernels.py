"""Golden vectors once more with VISIONATTN_KERNELS=off: every kernel and exact form gives way, no answer changes."""

from __future__ import annotations

import pytest
from attention.test_double import test_golden as test_golden_double  # noqa: F401
from attention.test_efficient import test_golden as test_golden_efficient  # noqa: F401
from attention.test_efficient import test_golden_derived as test_golden_efficient_derived  # noqa: F401
from attention.test_efficient import test_golden_image_linear_attention  # noqa: F401
from attention.test_linear import test_golden as test_golden_linear  # noqa: F401
from attention.test_performer import test_golden as test_golden_performer  # noqa: F401
from attention.test_window import (
    test_golden_microsoft_block,  # noqa: F401
    test_golden_microsoft_window,  # noqa: F401
    test_golden_mmseg,  # noqa: F401
    test_golden_timm,  # noqa: F401
)
from attention.test_window_v2 import test_golden_microsoft_window as test_golden_window_v2  # noqa: F401
from torch import nn

from visionattn.attention.efficient import EfficientAttention
from visionattn.attention.window import WindowAttention
from visionattn.ops.kernels.dispatch import kernels_allowed


@pytest.fixture(autouse=True)
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of the exact forms may be reached."""
    monkeypatch.setenv("VISIONATTN_KERNELS", "off")

    def taken(self: nn.Module, *args: object) -> None:
        raise AssertionError(f"{type(self).__name__} took its exact form")

    monkeypatch.setattr(EfficientAttention, "_fold", taken)
    monkeypatch.setattr(WindowAttention, "_walk", taken)


def test_they_are_off() -> None:
    assert not kernels_allowed()

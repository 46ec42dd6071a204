"""How kernels are launched: what their matrix products multiply."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from visionattn.ops.kernels.launching import number_format

pytest.importorskip("triton")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision = "none"


def test_float32_keeps_its_digits_unless_tf32_is_allowed() -> None:
    assert number_format(torch.float32)["PRECISION"] == "tf32x3"
    for precision, expected in (("high", "tf32"), ("medium", "tf32"), ("highest", "tf32x3")):
        torch.set_float32_matmul_precision(precision)
        assert number_format(torch.float32)["PRECISION"] == expected


@pytest.mark.parametrize(("precision", "expected"), [("tf32", "tf32"), ("ieee", "tf32x3")])
def test_the_newer_setting_is_read_as_well(precision: str, expected: str) -> None:
    torch.backends.cuda.matmul.fp32_precision = precision
    assert number_format(torch.float32)["PRECISION"] == expected

"""Every kernel in Triton's interpreter, against the eager twin in float64, and that twin against plain loops."""

from __future__ import annotations

import interpreted_efficient_attention
import interpreted_feature_attention
import interpreted_folded_attention
import interpreted_stereo
import interpreted_window_attention
import pytest
import torch
from kernel_cases import too_large
from kernel_interpreter import interpreted

PROGRAMS = {
    "interpreted_efficient_attention.py": interpreted_efficient_attention,
    "interpreted_feature_attention.py": interpreted_feature_attention,
    "interpreted_folded_attention.py": interpreted_folded_attention,
    "interpreted_stereo.py": interpreted_stereo,
    "interpreted_window_attention.py": interpreted_window_attention,
}


# To bfloat16 the interpreter cuts numbers off, where PyTorch rounds.
ROUNDING = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def assert_kernels_equal_their_twin(program: str, chosen: str) -> None:
    cases, found = PROGRAMS[program].CASES[chosen], interpreted(program, chosen)
    assert list(found) == list(cases)
    wrong = {name: too_large(errors, ROUNDING[cases[name].dtype]) for name, errors in found.items()}
    assert not any(wrong.values()), {name: errors for name, errors in wrong.items() if errors}


@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_equal_their_twin(program: str) -> None:
    assert_kernels_equal_their_twin(program, "plain")


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_equal_their_twin_in_every_order_and_size(program: str) -> None:
    assert_kernels_equal_their_twin(program, "slow")

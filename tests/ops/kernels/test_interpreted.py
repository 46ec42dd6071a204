"""Every kernel in Triton's interpreter, against the eager twin in float64, and that twin against plain loops."""

from __future__ import annotations

import interpreted_efficient_attention
import interpreted_feature_attention
import interpreted_folded_attention
import interpreted_stereo
import interpreted_window_attention
import pytest
from kernel_interpreter import interpreted

PROGRAMS = {
    "interpreted_efficient_attention.py": interpreted_efficient_attention,
    "interpreted_feature_attention.py": interpreted_feature_attention,
    "interpreted_folded_attention.py": interpreted_folded_attention,
    "interpreted_stereo.py": interpreted_stereo,
    "interpreted_window_attention.py": interpreted_window_attention,
}


def judge(found: dict[str, float], dtype: str) -> dict[str, float]:
    """The errors that are too large: of a kernel above twice its twin's in that dtype and above rounding."""
    # To bfloat16 the interpreter cuts numbers off, where PyTorch rounds.
    rounding = {"torch.float32": 2e-6, "torch.float16": 2e-3, "torch.bfloat16": 2e-2}[dtype]
    wrong = {}
    for name, size in found.items():
        kind, _, of = name.partition(": ")
        if kind == "kernel":
            allowed = max(2 * found[f"twin: {of}"], rounding)
        elif kind == "twin":
            continue
        else:
            allowed = 0.0 if "differ" in name else 1e-11
        if not size <= allowed:  # NaN is too large
            wrong[name] = size
    return wrong


@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_equal_their_twin(program: str) -> None:
    cases, found = PROGRAMS[program].CASES["plain"], interpreted(program, "plain")
    assert list(found) == list(cases)
    wrong = {name: judge(errors, str(cases[name].dtype)) for name, errors in found.items()}
    assert not any(wrong.values()), {name: errors for name, errors in wrong.items() if errors}


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_equal_their_twin_in_every_order_and_size(program: str) -> None:
    cases, found = PROGRAMS[program].CASES["slow"], interpreted(program, "slow")
    assert list(found) == list(cases)
    wrong = {name: judge(errors, str(cases[name].dtype)) for name, errors in found.items()}
    assert not any(wrong.values()), {name: errors for name, errors in wrong.items() if errors}

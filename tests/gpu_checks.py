"""What all kernels have to hold on a CUDA device: precision, bit-equal repeats, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from kernel_cases import too_large
from torch import Tensor, nn

ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def each_case(*suites: tuple[Callable[..., dict[str, float]], Mapping[str, Any]]) -> pytest.MarkDecorator:
    """A test of `measure` and `case` for each case: several processes can share the compiling of their kernels.

    Args:
        suites: what measures, of one of the programs for the interpreter, and its cases, with a dtype each.
    """
    assert all(cases for _, cases in suites)
    found = [
        pytest.param(measure, case, id=f"{measure.__module__.removeprefix('interpreted_')}: {name}")
        for measure, cases in suites
        for name, case in cases.items()
    ]
    return pytest.mark.parametrize(("measure", "case"), found)


def assert_as_exact_as_plain_pytorch(measure: Callable[..., dict[str, float]], case: Any) -> None:
    """No error of the case is above twice that of plain PyTorch in its dtype, and above rounding."""
    found = measure(case, with_loops=False, device="cuda")
    assert found
    wrong = too_large(found, max(2e-6, torch.finfo(case.dtype).eps))
    assert not wrong, wrong


def assert_repeats_are_bit_equal(run: Callable[[], Sequence[Tensor]]) -> None:
    """Of three runs."""
    first, *others = (run() for _ in range(3))
    assert all(torch.equal(a, b) for again in others for a, b in zip(first, again, strict=True))


def assert_compiles_and_is_captured(module: nn.Module, *inputs: Tensor, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """One graph of torch.compile answers as the module does, to a tolerance, and so does a CUDA graph."""
    with torch.no_grad():
        expected = module(*inputs)
        compiled = torch.compile(module, fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), expected, rtol=rtol, atol=atol)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = module(*inputs)
        graph.replay()
    torch.testing.assert_close(out, expected)

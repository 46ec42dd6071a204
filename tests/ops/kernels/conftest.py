"""What every test of the kernels is run with."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def compiled_anew() -> Iterator[None]:
    """No test is refused a graph for what others compiled: torch.compile keeps eight of a function, then gives up."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()

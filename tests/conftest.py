"""How the tests are spread: all of them over several processes of one thread each, chosen ones in this process."""

from __future__ import annotations

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # OpenMP threads of several processes on the same cores wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for `-n auto`: the cores for the whole of tests/, none beside this one for files or tests by name."""
    whole = config.args == config.getini("testpaths")
    return len(os.sched_getaffinity(0)) if whole and hasattr(os, "sched_getaffinity") else 0

"""How the tests are spread: all of them over several processes of one thread each, chosen ones in this process."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

import pytest

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # threads of several processes on the same cores wait for one another
    if sys.platform == "linux":  # what a test forked and waits for must not hold on to the pipes of a worker that ended
        prctl = ctypes.CDLL(None).prctl
        os.register_at_fork(after_in_child=lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Processes for `-n auto`: the cores for the whole of tests/, none beside this one for files or tests by name."""
    whole = config.args == config.getini("testpaths")
    return len(os.sched_getaffinity(0)) if whole and hasattr(os, "sched_getaffinity") else 0

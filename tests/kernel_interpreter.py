"""Runs a program of tests/ in Triton's interpreter, which takes kernels on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def interpreted(program: str, chosen: str) -> dict[str, Any]:
    """What the program measured, by case; skips where Triton is not installed.

    Args:
        program: the name of a file of tests/
        chosen: which of its cases.
    """
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("VISIONATTN_KERNELS", None)
    run = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program)), chosen],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    return json.loads(run.stdout.splitlines()[-1])

"""Fair timings on a machine that others use too: every candidate runs once per round, and medians over rounds are kept.

A disturbance hits all candidates of its round alike, so their ratios hold where absolute numbers drift.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from visionattn.analysis.machine import describe_machine

_BURST_MS = 10.0


def median_ms(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, *, repeats: int, budget_s: float
) -> dict[str, float]:
    """Median milliseconds per run of each candidate over interleaved rounds.

    In each round, in an order that changes from round to round, each candidate runs until `_BURST_MS` have passed:
    what it finds in the caches is mostly its own.

    Args:
        candidates: name and what to run.
        device: CUDA is timed by device events; the CPU by `clock`.
        repeats: rounds.
        budget_s: a candidate that has used this many seconds sits out the remaining rounds, after three at least.
    """
    burst = {}
    for name, run in candidates.items():
        run()
        burst[name] = max(1, round(_BURST_MS / _milliseconds(run, device, 1)))
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order, shuffle = list(candidates), random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            if len(times[name]) < 3 or sum(times[name]) * burst[name] < 1e3 * budget_s:
                times[name].append(_milliseconds(candidates[name], device, burst[name]))
    return {name: median(spent) for name, spent in times.items()}


def clock(device: torch.device) -> str:
    """What `median_ms` reads on this device with the present number of threads."""
    if device.type == "cuda":
        return "device events"
    return "process CPU time" if torch.get_num_threads() == 1 else "wall time"


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure must be reported with."""
    return {**describe_machine(device), "clock": clock(device), "commit": _commit()}


def _milliseconds(run: Callable[[], object], device: torch.device, times: int) -> float:
    """Milliseconds per run, of `times` runs in a row."""
    if device.type == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(times):
            run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / times
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    before = now()
    for _ in range(times):
        run()
    return 1e3 * (now() - before) / times


def _commit() -> str:
    """The commit of this checkout, with "+" if files differ from it; "unknown" outside one."""
    here = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()

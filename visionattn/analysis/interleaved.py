"""Fair timings on a machine that others use too: every candidate runs once per round, and medians over rounds are kept.

A disturbance hits all candidates of its round alike, so their ratios hold where absolute numbers drift.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch

from visionattn.analysis.timing import Stopwatch

Run = Callable[[], object]
Meter = Callable[[Run, int], float]
"""Milliseconds per run, of so many runs in a row."""

BURST_MS = 10.0
_MOST_RUNS = 1000


@dataclass(frozen=True)
class Timed:
    """Milliseconds per run of one candidate, over its rounds: the median and the extremes."""

    ms: float
    fastest_ms: float
    slowest_ms: float
    repeats: int


def interleaved(candidates: Mapping[str, Run], meter: Meter, *, repeats: int, budget_s: float) -> dict[str, Timed]:
    """Times of each candidate over interleaved rounds.

    In each round, in an order that changes from round to round, each candidate runs until `BURST_MS` have passed: what
    it finds in the caches is mostly its own.

    Args:
        candidates: name and what to run.
        meter: what reads the time; `meter_of` a device.
        repeats: rounds.
        budget_s: a candidate that has used this many seconds sits out the remaining rounds, after three at least.
    """
    burst = {}
    for name, run in candidates.items():
        first = meter(run, 1)
        # The first run may be slow for once; whatever takes this long then does not fit in a burst anyway.
        second = first if first > 20 * BURST_MS else meter(run, 1)
        burst[name] = min(max(1, round(BURST_MS / max(second, 1e-3))), _MOST_RUNS)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order, shuffle = list(candidates), random.Random(0).shuffle
    for _ in range(repeats):
        shuffle(order)
        for name in order:
            if len(times[name]) < 3 or sum(times[name]) * burst[name] < 1e3 * budget_s:
                times[name].append(meter(candidates[name], burst[name]))
    return {name: Timed(median(spent), min(spent), max(spent), len(spent)) for name, spent in times.items()}


def clock_of(device: torch.device) -> str:
    """What `meter_of` reads on this device with the present number of threads."""
    if device.type == "cuda":
        return "device events"
    return "process CPU time" if torch.get_num_threads() == 1 else "wall time"


def meter_of(device: torch.device) -> Meter:
    """Device events on CUDA (not run on a GPU); on the CPU the process's own time, of several threads the wall's."""
    now = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def on_cuda(run: Run, times: int) -> float:
        watch = Stopwatch(device)
        start = watch.mark()
        for _ in range(times):
            run()
        return watch.milliseconds(start, watch.mark()) / times

    def on_cpu(run: Run, times: int) -> float:
        before = now()
        for _ in range(times):
            run()
        return 1e3 * (now() - before) / times

    return on_cuda if device.type == "cuda" else on_cpu

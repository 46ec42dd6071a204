"""Wall-clock time of runs on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch


class Stopwatch:
    """Marks on a device's time line: events on CUDA (not run on a GPU), the wall clock elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Any:
        """Now, for what was asked of the device so far."""
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self, start: Any, stop: Any) -> float:
        """From one mark to a later one; waits until the device has come so far."""
        if not self._cuda:
            return 1e3 * (stop - start)
        stop.synchronize()
        return float(start.elapsed_time(stop))


def run_times(run: Callable[[], object], device: torch.device, repeats: int, budget_s: float) -> list[float]:
    """Milliseconds of each run, after one that is not timed.

    Args:
        repeats: runs that are timed,
        budget_s: or fewer once they have taken this many seconds, but three at least.
    """
    watch = Stopwatch(device)
    run()
    times: list[float] = []
    while len(times) < repeats and (len(times) < 3 or sum(times) < 1e3 * budget_s):
        start = watch.mark()
        run()
        times.append(watch.milliseconds(start, watch.mark()))
    return times

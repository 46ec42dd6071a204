"""What the benchmarks share: medians over interleaved rounds (visionattn/analysis/interleaved.py), and the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from visionattn.analysis.interleaved import clock_of, interleaved, meter_of
from visionattn.analysis.machine import checkout_commit, describe_machine


def median_ms(
    candidates: Mapping[str, Callable[[], object]], device: torch.device, *, repeats: int, budget_s: float
) -> dict[str, float]:
    """Median milliseconds per run of each candidate over interleaved rounds; arguments as `interleaved` takes them."""
    timed = interleaved(candidates, meter_of(device), repeats=repeats, budget_s=budget_s)
    return {name: times.ms for name, times in timed.items()}


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure must be reported with."""
    return {**describe_machine(device), "clock": clock_of(device), "commit": checkout_commit()}

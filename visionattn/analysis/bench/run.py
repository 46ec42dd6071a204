"""The bench: all mechanisms, patterns and maps on a device, interleaved in one process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch

from visionattn.analysis.bench.candidate import (
    PATTERNS,
    Candidate,
    Sizes,
    candidate,
    counted_macs,
    options_of,
    random_map,
    run_of,
    shape_costs,
)
from visionattn.analysis.bench.contract import answers_by_query_alone, broken_promises
from visionattn.analysis.bench.families import family_of
from visionattn.analysis.bench.forecast import Forecast, Foreseen, Limits, probe_of, why_left_out
from visionattn.analysis.interleaved import Meter, Run, interleaved, meter_of
from visionattn.analysis.machine import describe_timing
from visionattn.analysis.memory import peak_extra_bytes
from visionattn.attention.build import attention_class
from visionattn.typing import Grid

PASSES = ("forward", "training")
_FEWEST_ROUNDS = 3
_BEFORE_ROUNDS = 4
"""Runs of a case beside its rounds: warming up, memory, and how many fit in a burst."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        mechanisms: names in the registry.
        grids: of the maps.
        patterns: of `PATTERNS`.
        devices: as torch names them.
        sizes: what all mechanisms share.
        repeats: interleaved rounds of each cell,
        budget_s: of which a candidate sits out the rest once it has used so many seconds, after three at least.
        limits: beyond which a case is left out.
    """

    mechanisms: Sequence[str]
    grids: Sequence[Grid] = ((16, 16), (32, 32), (64, 64))
    patterns: Sequence[str] = PATTERNS
    devices: Sequence[str] = ("cpu",)
    sizes: Sizes = field(default_factory=Sizes)
    repeats: int = 7
    budget_s: float = 2.0
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Instruments:
    """What time and memory are read from.

    Attributes:
        meter: milliseconds per run.
        peak_bytes: most that a run holds beside what was held before.
        now: seconds, for the limit of the whole bench.
    """

    meter: Meter
    peak_bytes: Callable[[Run], int]
    now: Callable[[], float] = time.monotonic


def instruments_of(device: torch.device) -> Instruments:
    """Those of a device."""
    return Instruments(meter_of(device), lambda run: peak_extra_bytes(run, device))


def bench(
    plan: Plan,
    *,
    instruments: Callable[[torch.device], Instruments] = instruments_of,
    say: Callable[[str], object] = lambda line: None,
    save: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """All figures, ready for JSON (docs/attention_bench.md says what is in it).

    Args:
        instruments: those of a device.
        say: takes a line for every cell.
        save: takes the report after every cell, so that what was measured outlives an interruption.
    """
    mechanisms = {name: _described(name, plan.sizes) for name in plan.mechanisms}
    for name, about in mechanisms.items():
        if about["refused"]:
            say(f"{name} is refused: {'; '.join(about['refused'])}")
    report: dict[str, Any] = {
        "bench": "visionattn attention bench",
        "machines": {},
        "settings": {
            **asdict(plan.sizes),
            "dtype": "float32",
            "grids": [list(grid) for grid in plan.grids],
            "patterns": list(plan.patterns),
            "repeats": plan.repeats,
            "budget_s": plan.budget_s,
            **asdict(plan.limits),
        },
        "mechanisms": mechanisms,
        "rows": [],
    }
    timed = [name for name, about in mechanisms.items() if not about["refused"]]
    for device_name in plan.devices:
        device = torch.device(device_name)
        report["machines"][device_name] = describe_timing(device)
        walk = _Walk(plan, timed, device_name, instruments(device))
        for grid in plan.grids:
            for cell, rows in walk.over(grid):
                report["rows"] += rows
                say(_told(device_name, cell, rows))
                save(report)
    return report


def _described(name: str, sizes: Sizes) -> dict[str, Any]:
    mixer = attention_class(name)
    refused = broken_promises(name, sizes)
    return {
        "family": family_of(name),
        "cost": mixer.claims.cost,
        "paper": mixer.claims.paper,
        "options": options_of(name, sizes),
        "causal_cross": not refused and answers_by_query_alone(name, sizes),
        "refused": refused,
    }


def _told(device: str, cell: str, rows: list[Row]) -> str:
    left_out = sum(row["left_out"] is not None for row in rows)
    return f"{device} {cell}: {len(rows) - left_out} measured" + (f", {left_out} left out" if left_out else "")


def _flops(macs: int | None) -> int | None:
    return None if macs is None else 2 * macs


class _Walk:
    """Over the maps of one device, the smaller ones first, as they tell what the larger ones will take."""

    def __init__(self, plan: Plan, names: list[str], device: str, instruments: Instruments) -> None:
        self._plan, self._names, self._device, self._read = plan, names, torch.device(device), instruments
        self._forecast = Forecast()
        self._costs = cache(shape_costs)  # both passes ask
        minutes = plan.limits.minutes
        self._end = math.inf if minutes is None else instruments.now() + 60 * minutes
        self._first = True

    def over(self, grid: Grid) -> Iterator[tuple[str, list[Row]]]:
        """Name and rows of the grid's two cells: forward, forward and backward."""
        probe = probe_of(grid) if self._first else None
        self._first = False
        if probe is not None:
            for training in (False, True):
                self._measured(probe, training, rounds=False)
        for training in (False, True):
            cell = f"{' x '.join(map(str, grid))} {PASSES[training]}"
            yield cell, self._measured(grid, training, rounds=True)

    def _measured(self, grid: Grid, training: bool, *, rounds: bool) -> list[Row]:
        rows: dict[str, Row] = {}
        runs: dict[str, Run] = {}
        foreseen: dict[str, float] = {}
        for name in self._names:
            for pattern in self._plan.patterns:
                costs = self._costs(name, pattern, grid, self._plan.sizes)
                if costs is None:
                    continue
                key = f"{name} {pattern}"
                rows[key] = self._row(name, pattern, grid, training, *costs)
                expected = self._expected(rows[key])
                rows[key]["left_out"] = why_left_out(expected, costs[1], self._plan.limits, training=training)
                if rows[key]["left_out"] is None:
                    foreseen[key] = 0.0 if expected is None else expected.ms
        self._leave_out_what_does_not_fit(rows, foreseen)
        for key in foreseen:
            self._try(rows[key], runs, key)
        if rounds and runs:
            timed = interleaved(runs, self._read.meter, repeats=self._rounds(rows, runs), budget_s=self._plan.budget_s)
            for key, times in timed.items():
                rows[key] |= asdict(times)
                self._remember(rows[key])
        return list(rows.values())

    def _row(self, name: str, pattern: str, grid: Grid, training: bool, macs: int | None, weight_bytes: int) -> Row:
        return {
            "device": str(self._device),
            "mechanism": name,
            "pattern": pattern,
            "grid": list(grid),
            "tokens": math.prod(grid),
            "pass": PASSES[training],
            "forward_macs": macs,
            "forward_flops": _flops(macs),
            "weight_bytes": weight_bytes,
            "ms": None,
            "fastest_ms": None,
            "slowest_ms": None,
            "repeats": 0,
            "peak_bytes": None,
            "left_out": None,
        }

    def _case(self, row: Row) -> tuple[str, str, str]:
        return row["mechanism"], row["pattern"], row["pass"]

    def _expected(self, row: Row) -> Foreseen | None:
        growth = attention_class(row["mechanism"]).claims.cost
        return self._forecast.of(self._case(row), row["tokens"], row["forward_macs"], growth)

    def _remember(self, row: Row) -> None:
        took = Foreseen(row["ms"], row["peak_bytes"])
        self._forecast.saw(self._case(row), row["tokens"], row["forward_macs"], took)

    def _leave_out_what_does_not_fit(self, rows: dict[str, Row], foreseen: dict[str, float]) -> None:
        """The dearest first, until the rest has time for three rounds."""
        runs = _FEWEST_ROUNDS + _BEFORE_ROUNDS
        for key in sorted(foreseen, key=lambda key: foreseen[key], reverse=True):
            left = self._end - self._read.now()
            if runs * sum(foreseen.values()) / 1e3 <= left and left > 0:
                return
            rows[key]["left_out"] = f"no time left of the {self._plan.limits.minutes:g} minutes of the whole bench"
            del foreseen[key]

    def _rounds(self, rows: dict[str, Row], runs: dict[str, Run]) -> int:
        """Those planned, or as many as time is left for."""
        left = self._end - self._read.now()
        if left == math.inf:
            return self._plan.repeats
        round_s = sum(max(rows[key]["ms"], 10.0) for key in runs) / 1e3  # a burst takes about 10 ms
        return max(_FEWEST_ROUNDS, min(self._plan.repeats, int(left / round_s)))

    def _try(self, row: Row, runs: dict[str, Run], key: str) -> None:
        """Builds the case, runs it once for its time and once for its memory."""
        grid, sizes, training = tuple(row["grid"]), self._plan.sizes, row["pass"] == "training"
        try:
            case = candidate(row["mechanism"], row["pattern"], grid, sizes, self._device)
            assert case is not None, "it was counted"
            if row["forward_macs"] is None:
                self._count(row, case)
            run = run_of(case, grid, sizes, self._device, training=training)
            row["ms"] = self._read.meter(run, 1)
            row["peak_bytes"] = self._read.peak_bytes(run)
        except (RuntimeError, ValueError) as error:  # out of memory, or a map that it does not take
            row["left_out"] = f"failed: {' '.join(str(error).split())[:200]}"
            row["ms"] = row["peak_bytes"] = None
            return
        runs[key] = run
        self._remember(row)

    def _count(self, row: Row, case: Candidate) -> None:
        """By a run, where that was not possible without."""
        case.mixer.eval()
        macs = counted_macs(case, random_map(tuple(row["grid"]), self._plan.sizes, self._device))
        row["forward_macs"], row["forward_flops"] = macs, _flops(macs)

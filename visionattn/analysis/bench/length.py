"""Efficiency length (CAB, Zhang et al., arXiv 2210.07661): the tokens from which a mechanism beats softmax attention.

The opponent is `SoftmaxAttention`, PyTorch's fused kernel, with the same width and heads on the same square map.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import torch

from visionattn.analysis.bench.candidate import Sizes, candidate, run_of, shape_costs
from visionattn.analysis.bench.contract import broken_promises
from visionattn.analysis.bench.crossing import bracket, crossing
from visionattn.analysis.bench.families import family_of
from visionattn.analysis.bench.forecast import Forecast, Foreseen, Limits, why_left_out
from visionattn.analysis.bench.run import PASSES, Instruments, instruments_of
from visionattn.analysis.interleaved import Run, interleaved
from visionattn.analysis.machine import describe_timing
from visionattn.attention.build import attention_class

OPPONENT = "SoftmaxAttention"


@dataclass(frozen=True)
class Search:
    """What is looked at.

    Attributes:
        mechanisms: names in the registry.
        smallest, largest: sides of the square maps; between them the ladder's rungs double.
        passes: of `PASSES`.
        device: as torch names it.
        sizes: what all mechanisms share.
        searches: how often time is searched for a crossing; memory does not vary and is searched once.
        rounds: interleaved rounds of every comparison.
        limits: beyond which a mechanism climbs no further.
    """

    mechanisms: Sequence[str]
    smallest: int = 4
    largest: int = 64
    passes: Sequence[str] = PASSES
    device: str = "cpu"
    sizes: Sizes = field(default_factory=Sizes)
    searches: int = 3
    rounds: int = 5
    limits: Limits = field(default_factory=Limits)


def efficiency_lengths(
    search: Search,
    *,
    instruments: Callable[[torch.device], Instruments] = instruments_of,
    say: Callable[[str], object] = lambda line: None,
    save: Callable[[dict[str, Any]], object] = lambda report: None,
) -> dict[str, Any]:
    """For every mechanism and pass a crossing in time and one in memory, ready for JSON.

    Args:
        instruments: those of a device.
        say: takes a line for every mechanism.
        save: takes the report after every mechanism.
    Raises:
        ValueError: the smallest map is not smaller than the largest.
    """
    if not 1 <= search.smallest < search.largest:
        raise ValueError(
            f"the smallest side, {search.smallest}, must be 1 or more and below the largest, {search.largest}"
        )
    device = torch.device(search.device)
    names = [name for name in search.mechanisms if name != OPPONENT and 2 in attention_class(name).grid_dims]
    refused = {name: broken for name in names if (broken := broken_promises(name, search.sizes))}
    for name, broken in refused.items():
        say(f"{name} is refused: {'; '.join(broken)}")
    report: dict[str, Any] = {
        "bench": "visionattn attention efficiency-length",
        "machine": describe_timing(device),
        "settings": {
            **asdict(search.sizes),
            "dtype": "float32",
            "opponent": OPPONENT,
            "smallest": search.smallest,
            "largest": search.largest,
            "searches": search.searches,
            "rounds": search.rounds,
            **asdict(search.limits),
        },
        "mechanisms": {
            name: {
                "family": family_of(name),
                "cost": attention_class(name).claims.cost,
                "refused": refused.get(name, []),
            }
            for name in names
        },
    }
    for way in search.passes:
        duel = _Duel(search, device, instruments(device), training=way == "training")
        heights = duel.climb([name for name in names if name not in refused])
        for name, ladder in heights.items():
            if not ladder:
                say(f"{name}, {way}: even the smallest map is over a limit")
                continue
            found = {"time": duel.time(name, ladder), "memory": duel.memory(name, ladder)}
            report["mechanisms"][name][way] = found
            say(f"{name}, {way}: time {in_words(found['time'])}, memory {in_words(found['memory'])}")
            save(report)
    return report


def in_words(found: Mapping[str, Any]) -> str:
    """The tokens from which on it wins, as a person says it."""
    low, high, most = found["low"] or found["fewest"], found["high"], found["most"]
    if found["verdict"] == "never":
        return f"never up to {most:,}"
    if found["verdict"] == "always":
        return f"{high:,} or fewer"
    return f"{low:,} to beyond {most:,}" if found["verdict"] == "unsettled" else f"{low:,} to {high:,}"


class _Duel:
    """Mechanisms against the opponent, in one kind of pass."""

    def __init__(self, search: Search, device: torch.device, instruments: Instruments, *, training: bool) -> None:
        self._search, self._device, self._read, self._training = search, device, instruments, training
        self._rungs: list[dict[int, dict[str, float]]] = [{} for _ in range(search.searches)]
        self._held: dict[tuple[str, int], int] = {}
        self._shape_costs = cache(shape_costs)

    def climb(self, names: Sequence[str]) -> Mapping[str, list[int]]:
        """Times of all at once on every rung, for every search; the rungs that each reached with the opponent.

        One that would exceed a limit climbs no further; where the opponent would, nobody does.
        """
        forecast = Forecast()
        left = [OPPONENT, *names]
        reached: dict[str, list[int]] = {name: [] for name in names}
        for side in _ladder(self._search.smallest, self._search.largest):
            for name in [*left]:
                macs, weights = self._costs(name, side)
                foreseen = forecast.of(name, side**2, macs, attention_class(name).claims.cost)
                if why_left_out(foreseen, weights, self._search.limits, training=self._training) is not None:
                    left.remove(name)
            if OPPONENT not in left:
                break
            runs = {name: self._run(name, side) for name in left}
            for number, rungs in enumerate(self._rungs):
                rungs[side] = self._times(runs)
                if number == 0:
                    for name in left:
                        macs, weights = self._costs(name, side)
                        held = self._memory(name, side, runs[name]) - weights
                        forecast.saw(name, side**2, macs, Foreseen(rungs[side][name], held))
            for name in left:
                if name != OPPONENT:
                    reached[name].append(side)
        return reached

    def time(self, name: str, ladder: Sequence[int]) -> dict[str, Any]:
        """The crossing in time."""

        def search(rungs: dict[int, dict[str, float]]) -> Callable[[int], bool]:
            def wins(side: int) -> bool:
                times = rungs.get(side)
                if times is None:
                    times = self._times({each: self._run(each, side) for each in (name, OPPONENT)})
                return times[name] < times[OPPONENT]

            return wins

        return asdict(crossing([bracket(search(rungs), ladder) for rungs in self._rungs], ladder))

    def memory(self, name: str, ladder: Sequence[int]) -> dict[str, Any]:
        """The crossing in memory: weights and the peak of a run."""

        def wins(side: int) -> bool:
            return self._memory(name, side) < self._memory(OPPONENT, side)

        return asdict(crossing([bracket(wins, ladder)], ladder))

    def _times(self, runs: Mapping[str, Run]) -> dict[str, float]:
        seconds = self._search.limits.run_s * self._search.rounds
        timed = interleaved(runs, self._read.meter, repeats=self._search.rounds, budget_s=seconds)
        return {name: times.ms for name, times in timed.items()}

    def _memory(self, name: str, side: int, run: Run | None = None) -> int:
        known = self._held.get((name, side))
        if known is None:
            if run is None:
                run = self._run(name, side)
                run()  # what is made once is not what a run holds
            known = self._held[name, side] = self._read.peak_bytes(run) + self._costs(name, side)[1]
        return known

    def _costs(self, name: str, side: int) -> tuple[int | None, int]:
        costs = self._shape_costs(name, "self", (side, side), self._search.sizes)
        assert costs is not None, "every mechanism looks at itself"
        return costs

    def _run(self, name: str, side: int) -> Run:
        grid, sizes = (side, side), self._search.sizes
        case = candidate(name, "self", grid, sizes, self._device)
        assert case is not None, "every mechanism looks at itself"
        return run_of(case, grid, sizes, self._device, training=self._training)


def _ladder(smallest: int, largest: int) -> list[int]:
    """Sides that double, the largest last."""
    rungs = [smallest]
    while 2 * rungs[-1] < largest:
        rungs.append(2 * rungs[-1])
    return [*rungs, largest]

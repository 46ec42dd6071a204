"""What a case is going to take, told from a smaller map before any of it is lost."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from visionattn.typing import Grid

_GROWTH = {"N": 1.0, "N log N": 1.2, "N^1.5": 1.5, "N^2": 2.0}
_PROBE_TOKENS = 1024


@dataclass(frozen=True)
class Limits:
    """Beyond these a case is left out.

    Attributes:
        run_s: seconds of one run.
        run_bytes: weights and peak memory of one run.
        minutes: of the whole bench; None is no limit.
    """

    run_s: float = 5.0
    run_bytes: int = 2_000_000_000
    minutes: float | None = None


@dataclass(frozen=True)
class Foreseen:
    """One run: milliseconds, and peak bytes beside the weights."""

    ms: float
    peak_bytes: int


class Forecast:
    """Remembers the largest map so far of every case, and scales it up by tokens or multiplications."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[int, int | None, Foreseen]] = {}

    def saw(self, case: Hashable, tokens: int, macs: int | None, took: Foreseen) -> None:
        """What a case took on a map of so many tokens."""
        known = self._seen.get(case)
        if known is None or known[0] <= tokens:
            self._seen[case] = (tokens, macs, took)

    def of(self, case: Hashable, tokens: int, macs: int | None, growth: str) -> Foreseen | None:
        """What it is going to take; None where no smaller map of the case is known.

        The larger of the ratios of tokens and of multiplications scales time and memory both: memory that grows like
        the tokens alone is overestimated, never the other way round.

        Args:
            growth: the mechanism's claim, for where multiplications are not counted.
        """
        known = self._seen.get(case)
        if known is None or known[0] > tokens:
            return None
        before, before_macs, took = known
        ratio = tokens / before
        if macs and before_macs:
            ratio = max(ratio, macs / before_macs)
        else:
            ratio **= _GROWTH.get(growth, 2.0)
        return Foreseen(took.ms * ratio, math.ceil(took.peak_bytes * ratio))


def why_left_out(foreseen: Foreseen | None, weight_bytes: int, limits: Limits, *, training: bool) -> str | None:
    """The reason to leave a case out; None if it may run."""
    gradients = weight_bytes if training and foreseen is None else 0  # else they are in the peak
    total = weight_bytes + gradients + (0 if foreseen is None else foreseen.peak_bytes)
    if total > limits.run_bytes:
        return f"predicted {total / 1e9:.1f} GB, over the limit of {limits.run_bytes / 1e9:g} GB"
    if foreseen is not None and foreseen.ms > 1e3 * limits.run_s:
        return f"predicted {foreseen.ms / 1e3:.1f} s a run, over the limit of {limits.run_s:g} s"
    return None


def probe_of(grid: Grid) -> Grid | None:
    """A smaller map from which the first one of a bench is foreseen; None where it is small enough to just run."""
    probe = grid
    while math.prod(probe) > _PROBE_TOKENS:
        probe = tuple(max(1, n // 2) for n in probe)
    return None if probe == grid else probe

"""From which size on one thing is cheaper than another: a ladder of sizes, and bisection between two of its rungs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_FINE = 16
"""The search ends when a step is this small a part of the size."""

Bracket = tuple[int | None, int | None]
"""The last size that loses and the first from which on all win; None beyond what was looked at."""


def bracket(wins: Callable[[int], bool], ladder: Sequence[int]) -> Bracket:
    """Where the ladder's last loss is, narrowed by bisection.

    A win below a loss does not count: what is asked for is the size from which on it wins. Between two rungs there is
    taken to be one such size.

    Args:
        wins: whether it is cheaper at this size.
        ladder: sizes, ascending.
    """
    lost = [size for size in ladder if not wins(size)]
    if not lost:
        return None, ladder[0]
    low = lost[-1]
    if low == ladder[-1]:
        return low, None
    high = ladder[ladder.index(low) + 1]
    while high - low > max(1, low // _FINE):
        middle = (low + high) // 2
        low, high = (low, middle) if wins(middle) else (middle, high)
    return low, high


@dataclass(frozen=True)
class Crossing:
    """What several searches found, in tokens.

    Attributes:
        verdict: "from" low to high, "always", "never" (not at the most tokens looked at), or "unsettled" where some
            searches found a crossing and others none.
        low: fewest tokens that lost last in any search; None where a search lost nowhere.
        high: most tokens from which on a search won; None where a search did not win at the end.
        fewest, most: tokens looked at.
        searches: (low, high) of each.
    """

    verdict: str
    low: int | None
    high: int | None
    fewest: int
    most: int
    searches: tuple[Bracket, ...]


def crossing(searches: Sequence[Bracket], ladder: Sequence[int]) -> Crossing:
    """All searches together; sizes become tokens of square maps."""
    in_tokens = tuple((None if low is None else low**2, None if high is None else high**2) for low, high in searches)
    lows, highs = [low for low, _ in in_tokens], [high for _, high in in_tokens]
    low = None if None in lows else min(low for low in lows if low is not None)
    high = None if None in highs else max(high for high in highs if high is not None)
    if all(value is None for value in highs):
        verdict = "never"
    elif None in highs:
        verdict = "unsettled"
    else:
        verdict = "always" if all(value is None for value in lows) else "from"
    return Crossing(verdict, low, high, ladder[0] ** 2, ladder[-1] ** 2, in_tokens)

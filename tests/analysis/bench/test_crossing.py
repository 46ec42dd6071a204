"""Where one thing becomes cheaper than another, of costs that the test knows."""

from __future__ import annotations

import random

import pytest

from visionattn.analysis.bench.crossing import bracket, crossing

LADDER = (4, 8, 16, 32, 64)


@pytest.mark.parametrize("first", range(5, 65))
def test_the_first_win_is_inside_the_bracket(first: int) -> None:
    low, high = bracket(lambda side: side >= first, LADDER)
    assert low is not None
    assert high is not None
    assert low < first <= high
    assert high - low <= max(1, low // 16)


def test_always_and_never() -> None:
    assert bracket(lambda side: True, LADDER) == (None, 4)
    assert bracket(lambda side: False, LADDER) == (64, None)


def test_a_win_below_a_loss_does_not_count() -> None:
    assert bracket(lambda side: side in (4, 8) or side >= 50, LADDER) == (48, 50)
    assert bracket(lambda side: side < 40, LADDER) == (64, None)


def test_searches_together_are_an_interval_in_tokens() -> None:
    found = crossing([(10, 11), (12, 13), (9, 10)], LADDER)
    assert (found.verdict, found.low, found.high, found.fewest, found.most) == ("from", 81, 169, 16, 4096)
    assert found.searches == ((100, 121), (144, 169), (81, 100))


@pytest.mark.parametrize(
    ("searches", "verdict", "low", "high"),
    [
        ([(None, 4), (None, 4)], "always", None, 16),
        ([(64, None), (64, None)], "never", 4096, None),
        ([(20, 21), (64, None)], "unsettled", 400, None),
        ([(None, 4), (6, 7)], "from", None, 49),
    ],
)
def test_verdicts(searches: list[tuple[int | None, int | None]], verdict: str, low: int, high: int) -> None:
    found = crossing(searches, LADDER)
    assert (found.verdict, found.low, found.high) == (verdict, low, high)


def test_noise_widens_the_interval_around_the_truth() -> None:
    """Times of 3 N against N^2 / 40, each 10 % off at random: equal at 120 tokens."""
    noise = random.Random(0)

    def wins(side: int) -> bool:
        return 3 * side**2 * noise.uniform(0.9, 1.1) < side**4 / 40 * noise.uniform(0.9, 1.1)

    found = crossing([bracket(wins, LADDER) for _ in range(20)], LADDER)
    assert found.verdict == "from"
    assert found.low is not None
    assert found.high is not None
    assert 60 < found.low < 120 < found.high < 200

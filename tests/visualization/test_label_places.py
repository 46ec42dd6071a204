"""Names beside what they name, apart from each other."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from visionattn.visualization.label_places import spread_apart


def test_what_is_apart_stays() -> None:
    assert spread_apart([0.2, 0.9, 0.5], gap=0.1) == [0.2, 0.9, 0.5]


def test_what_is_too_near_is_pushed_apart_around_its_middle() -> None:
    assert spread_apart([0.5, 0.54], gap=0.1) == pytest.approx([0.47, 0.57])
    assert spread_apart([0.99, 1.0], gap=0.1) == pytest.approx([0.9, 1.0])


def test_no_two_are_nearer_than_the_gap_and_all_are_inside() -> None:
    numbers = random.Random(0)
    for _ in range(200):
        places = [numbers.betavariate(2, 8) for _ in range(numbers.randint(1, 9))]
        spread = spread_apart(places, gap=0.075)
        order = sorted(range(len(places)), key=lambda index: places[index])
        steps = [spread[b] - spread[a] for a, b in pairwise(order)]
        assert all(step >= 0.075 - 1e-9 for step in steps)
        assert all(-1e-9 <= place <= 1 + 1e-9 for place in spread)


def test_more_than_fit_share_the_height() -> None:
    assert spread_apart([0.5] * 5, gap=0.4) == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0])
    assert spread_apart([], gap=0.1) == []

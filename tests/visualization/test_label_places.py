"""Names beside what they name, apart from each other."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from visionattn.visualization.label_places import free_places, spread_apart


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


def test_names_cover_neither_points_nor_each_other_where_there_is_room() -> None:
    points = [(100.0, 100.0), (110.0, 102.0), (104.0, 98.0), (300.0, 100.0)]
    width, height = 60.0, 12.0
    boxes = []
    for (x, y), (dx, dy, side) in zip(points, free_places(points, [width] * 4, height), strict=True):
        left = x + dx if side == "left" else x + dx - width
        boxes.append((left, y + dy - height / 2, left + width, y + dy + height / 2))
    for index, a in enumerate(boxes):
        assert not any(a[0] <= x <= a[2] and a[1] <= y <= a[3] for x, y in points)
        for b in boxes[:index]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    assert free_places(points[3:], [width], height) == [(8.0, 0.0, "left")]

"""Where names fit beside what they name."""

from __future__ import annotations

from collections.abc import Sequence


def spread_apart(places: Sequence[float], gap: float) -> list[float]:
    """Heights near the given ones, from 0 to 1, no two nearer than `gap`; in the given order.

    Neighbours that are too near become a block around their common mean, and blocks that meet become one.
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    gap = min(gap, 1.0 / max(len(places) - 1, 1))
    blocks: list[tuple[float, list[int]]] = []  # the middle, and who is in it
    for index in order:
        middle, members = places[index], [index]
        while True:
            reach = gap * (len(members) - 1) / 2
            middle = min(max(middle, reach), 1 - reach)
            if not blocks or blocks[-1][0] + gap * (len(blocks[-1][1]) - 1) / 2 + gap <= middle - reach + 1e-12:
                break
            other, below = blocks.pop()
            middle = (middle * len(members) + other * len(below)) / (len(members) + len(below))
            members = below + members
        blocks.append((middle, members))
    spread = [0.0] * len(places)
    for middle, members in blocks:
        for number, index in enumerate(members):
            spread[index] = middle + gap * (number - (len(members) - 1) / 2)
    return spread

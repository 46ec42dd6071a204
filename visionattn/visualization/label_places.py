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


def free_places(
    points: Sequence[tuple[float, float]], widths: Sequence[float], height: float
) -> list[tuple[float, float, str]]:
    """For the name of every point an offset and the side of the text that lies there, "left" or "right".

    The nearest place where it covers neither a point nor a name that is placed already; the least covered one where all
    cover something.

    Args:
        points: (x, y) in pixels.
        widths: of the names, in pixels.
        height: of a line of text, in pixels.
    """
    boxes: list[tuple[float, float, float, float]] = []
    found = []
    for (x, y), width in zip(points, widths, strict=True):
        best: tuple[float, tuple[float, float, str], tuple[float, float, float, float]] | None = None
        for far in (0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 4.5, -4.5, 6.0, -6.0):
            for side, away in (("left", 8.0), ("right", -8.0), ("left", 26.0), ("right", -26.0)):
                dx, dy = away, far * height
                left = x + dx if side == "left" else x + dx - width
                box = (left, y + dy - height / 2, left + width, y + dy + height / 2)
                covered = sum(_overlap(box, other) for other in boxes)
                covered += sum(2 * height * height for point in points if _inside(point, box))
                cost = covered + (abs(far) + abs(dx) / height) * 1e-3
                if best is None or cost < best[0]:
                    best = (cost, (dx, dy, side), box)
        assert best is not None
        boxes.append(best[2])
        found.append(best[1])
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def _inside(point: tuple[float, float], box: tuple[float, float, float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]

"""Charts: what is drawn is where the numbers are, and what cannot be drawn is left out or refused."""

from __future__ import annotations

import math
import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

from visionattn.visualization.curves import Line, _ticks, line_chart

NAN = float("nan")


def points_of(chart: str) -> list[list[tuple[float, float]]]:
    """The places of each polyline, in the SVG's pixels."""
    found = re.findall(r'<polyline points="([^"]+)"', chart)
    return [[tuple(map(float, place.split(","))) for place in line.split()] for line in found]  # type: ignore[misc]


def axis(chart: str, vertical: bool) -> list[tuple[float, str]]:
    """(pixel, what is written there) of an axis's ticks."""
    anchor = "end" if vertical else "middle"
    written = re.findall(r'<text x="([-\d.]+)" y="([-\d.]+)" text-anchor="(\w+)">([^<]+)</text>', chart)
    if vertical:
        return [(float(y) - 4, label) for x, y, to, label in written if to == anchor and float(x) < 58]
    return [(float(x), label) for x, y, to, label in written if float(y) == 247.0]


def test_points_are_where_the_axes_say() -> None:
    x, y = [0, 50, 100, 200], [1.0, 3.0, 2.0, 5.0]
    chart = line_chart("Loss", [Line("loss", x, y)], "iteration", "loss")
    (places,) = points_of(chart)
    ticks = [(pixel, float(label)) for pixel, label in axis(chart, vertical=True)]
    slope, offset = np.polyfit([pixel for pixel, _ in ticks], [value for _, value in ticks], 1)
    np.testing.assert_allclose([slope * pixel + offset for _, pixel in places], y, atol=0.02)
    assert slope < 0  # more is higher
    ticks = [(pixel, float(label)) for pixel, label in axis(chart, vertical=False)]
    slope, offset = np.polyfit([pixel for pixel, _ in ticks], [value for _, value in ticks], 1)
    np.testing.assert_allclose([slope * pixel + offset for pixel, _ in places], x, atol=0.5)


def test_it_is_xml_with_titles_and_a_legend_where_there_are_several() -> None:
    chart = line_chart("a < b & c", [Line("one", [1, 2], [1, 2]), Line("<two>", [1, 2], [2, 1])], "x", "y & z")
    root = ElementTree.fromstring(chart)
    text = " ".join(root.itertext())
    assert all(part in text for part in ("a < b & c", "one", "<two>", "y & z"))
    assert "legend" not in line_chart("t", [Line("one", [1, 2], [1, 2])], "x", "y")


def test_small_numbers_are_written_short() -> None:
    chart = line_chart("Learning rate", [Line("lr", [1, 2, 3], [0.0, 5e-4, 2e-3])], "iteration", "learning rate")
    assert "learning rate, 1e-3" in chart
    assert [label for _, label in axis(chart, vertical=True)] == ["0.0", "0.5", "1.0", "1.5", "2.0"]


def test_gaps_where_a_number_is_not_finite() -> None:
    line = Line("loss", [1, 2, 3, 4, 5, 6], [1.0, 2.0, NAN, 3.0, math.inf, 4.0])
    chart = line_chart("t", [line], "x", "y")
    assert [len(places) for places in points_of(chart)] == [2]
    assert chart.count("<circle") == 4  # also a single point is seen


def test_a_logarithmic_axis_has_powers_of_ten_and_no_zero() -> None:
    chart = line_chart("t", [Line("loss", [1, 2, 3, 4], [100.0, 10.0, 0.0, 0.1])], "x", "y", logarithmic=True)
    assert [label for _, label in axis(chart, vertical=True)] == ["1e-1", "1e0", "1e1", "1e2"]
    (places,) = points_of(chart)
    assert len(places) == 2


@pytest.mark.parametrize("lines", [[], [Line("a", [1], [NAN])], [Line("a", [1, 2], [1])]])
def test_what_cannot_be_drawn_is_refused(lines: list[Line]) -> None:
    with pytest.raises(ValueError, match=r"no line has a point|give as many of both"):
        line_chart("t", lines, "x", "y")


@pytest.mark.parametrize("values", [[5.0], [5.0, 5.0], [0.0, 0.0], [-1e-7, 1e-7], [1e9, 2e9]])
def test_odd_ranges_are_drawn(values: list[float]) -> None:
    chart = line_chart("t", [Line("a", list(range(len(values))), values)], "x", "y")
    assert "nan" not in chart
    assert "inf" not in chart


def test_ticks_are_round_and_around_the_range() -> None:
    numbers = random.Random(0)
    for _ in range(500):
        low = numbers.uniform(-1, 1) * 10 ** numbers.uniform(-6, 6)
        high = low + abs(numbers.gauss(0, 1)) * 10 ** numbers.uniform(-3, 5)
        ticks = _ticks(low, high, 5)
        step = ticks[1] - ticks[0]
        assert 2 <= len(ticks) <= 8
        assert ticks[0] <= low + 1e-6 * step
        assert ticks[-1] >= high - 1e-6 * step
        assert all(math.isclose(b - a, step, rel_tol=1e-4) for a, b in pairwise(ticks))


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    y = np.sin(np.linspace(0, 20, 50_000))
    y[31_234] = 9.0
    (places,) = points_of(line_chart("t", [Line("a", range(50_000), y.tolist())], "x", "y"))
    assert len(places) < 1000
    top = min(pixel for _, pixel in places)
    assert sum(pixel == top for _, pixel in places) == 1
    assert [x for x, _ in places] == sorted(x for x, _ in places)

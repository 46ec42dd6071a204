"""Line charts as SVG, in the page's colours, readable without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from visionattn.visualization.page import Html, element, joined

_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 10, 40
_COLOURS = 6
_MOST_POINTS = 600
_DOTS = 40  # a line of fewer points shows them


@dataclass(frozen=True)
class Line:
    """A curve: its name, and y over x, x ascending. Points that are not finite are left out and leave a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(title: str, lines: Sequence[Line], x_label: str, y_label: str, *, logarithmic: bool = False) -> Html:
    """A chart with axes, units, a grid, and a legend where there is more than one line.

    Args:
        logarithmic: the y axis; values of zero and less are left out.
    Raises:
        ValueError: no line has a point that can be drawn, or x and y are of different lengths.
    """
    for line in lines:
        if len(line.x) != len(line.y):
            raise ValueError(f"{line.name}: {len(line.x)} values of x and {len(line.y)} of y; give as many of both")
    drawn = [_segments(line, logarithmic) for line in lines]
    points = [point for segments in drawn for segment in segments for point in segment]
    if not points:
        raise ValueError(f"{title}: no line has a point that can be drawn")
    unit = 0 if logarithmic else _unit(max(abs(y) for _, y in points))
    if unit:  # 0.0005 is harder to read than 0.5, and wider
        drawn = [[[(x, y * 10**unit) for x, y in segment] for segment in segments] for segments in drawn]
        points = [point for segments in drawn for segment in segments for point in segment]
        y_label += f", 1e-{unit}"
    x_ticks = _ticks(min(x for x, _ in points), max(x for x, _ in points), 5)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    y_ticks = _powers(y_low, y_high) if logarithmic else _ticks(y_low, y_high, 5)
    x_of = _scale(min(x for x, _ in points), max(x for x, _ in points), _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(min(y_low, y_ticks[0]), max(y_high, y_ticks[-1]), _HEIGHT - _BOTTOM, _TOP)

    parts = [_grid(x_ticks, y_ticks, x_of, y_of, logarithmic), _labels(x_label, y_label)]
    for index, segments in enumerate(drawn):
        parts.append(_curve(segments, x_of, y_of, f"var(--line-{index % _COLOURS})", index >= _COLOURS))
    svg = element(
        "svg", joined(parts, "\n"), viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=f"{title}: {y_label}"
    )
    legend = _legend([line.name for line in lines]) if len(lines) > 1 else Html()
    return element("figure", joined((element("h3", title), legend, svg)))


def _segments(line: Line, logarithmic: bool) -> list[list[tuple[float, float]]]:
    """Runs of points that can be drawn, thinned to what a screen shows: of each stretch its lowest and its highest."""
    segments: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not logarithmic):
            segments[-1].append((float(x), math.log10(y) if logarithmic else float(y)))
        elif segments[-1]:
            segments.append([])
    return [_thinned(segment) for segment in segments if segment]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    if len(points) <= _MOST_POINTS:
        return points
    stretch = math.ceil(2 * len(points) / _MOST_POINTS)
    kept = [points[0]]
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*kept, points[-1]]


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` or just below to `high` or just above."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-300):
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, high + reach
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if (high - low) / (step * factor) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]


def _unit(largest: float) -> int:
    """The power of ten by which values are multiplied to be written short; 0 where they are short."""
    return -math.floor(math.log10(largest) + 1e-9) if 0 < largest < 0.01 else 0


def _powers(low: float, high: float) -> list[float]:
    """Logarithms of powers of ten around the two."""
    first, last = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    last = max(last, first + 1)
    every = math.ceil((last - first) / 6)
    return [float(power) for power in range(first, last + every, every)]


def _scale(low: float, high: float, start: float, end: float) -> tuple[float, float]:
    """(a, b) of a * value + b that leads from low..high to start..end."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    slope = (end - start) / (high - low)
    return slope, start - slope * low


def _at(scale: tuple[float, float], value: float) -> float:
    return round(scale[0] * value + scale[1], 1)


def _grid(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_of: tuple[float, float],
    y_of: tuple[float, float],
    logarithmic: bool,
) -> Html:
    parts = []
    for tick, written in zip(y_ticks, _written(y_ticks, logarithmic), strict=True):
        y = _at(y_of, tick)
        parts.append(
            element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, style="stroke:var(--rule)")
            + element("text", written, x=_LEFT - 6, y=y + 4, text_anchor="end")
        )
    for tick, written in zip(x_ticks, _written(x_ticks, False), strict=True):
        x = _at(x_of, tick)
        if not _LEFT - 0.5 <= x <= _WIDTH - _RIGHT + 0.5:
            continue
        base = _HEIGHT - _BOTTOM
        parts.append(
            element("line", x1=x, x2=x, y1=base, y2=base + 4, style="stroke:var(--muted)")
            + element("text", written, x=x, y=base + 17, text_anchor="end" if x > _WIDTH - 30 else "middle")
        )
    return element("g", Html("".join(parts)), style="fill:var(--muted);font-size:13px")


def _written(ticks: Sequence[float], logarithmic: bool) -> list[str]:
    if logarithmic:
        return [f"1e{round(tick)}" for tick in ticks]
    largest = max(abs(tick) for tick in ticks)
    if largest >= 10_000:
        return [f"{tick / 1000:g}k" if tick else "0" for tick in ticks]
    decimals = max(len(f"{tick:.10g}".partition(".")[2]) for tick in ticks)
    return [f"{tick:.{decimals}f}" for tick in ticks]


def _labels(x_label: str, y_label: str) -> Html:
    middle = (_HEIGHT - _BOTTOM + _TOP) / 2
    below = element("text", x_label, x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 5, text_anchor="middle")
    beside = element("text", y_label, transform=f"translate(11 {middle}) rotate(-90)", text_anchor="middle")
    return element("g", joined((below, beside)), style="fill:var(--muted);font-size:13px")


def _curve(
    segments: Sequence[Sequence[tuple[float, float]]],
    x_of: tuple[float, float],
    y_of: tuple[float, float],
    colour: str,
    dashed: bool,
) -> Html:
    parts = []
    number = sum(len(segment) for segment in segments)
    for segment in segments:
        places = [(_at(x_of, x), _at(y_of, y)) for x, y in segment]
        if len(places) > 1:
            path = " ".join(f"{x},{y}" for x, y in places)
            parts.append(element("polyline", points=path, **({"stroke_dasharray": "5 4"} if dashed else {})))
        if number <= _DOTS or len(places) == 1:
            parts += [element("circle", cx=x, cy=y, r=2.5, style=f"fill:{colour}") for x, y in places]
    return element("g", joined(parts), style=f"fill:none;stroke:{colour};stroke-width:1.8;stroke-linejoin:round")


def _legend(names: Sequence[str]) -> Html:
    items = (
        element("li", joined((element("span", class_="swatch", style=f"background:var(--line-{i % _COLOURS})"), name)))
        for i, name in enumerate(names)
    )
    return element("ul", joined(items), class_="legend")

"""Charts of what mechanisms cost: a line each over the tokens of the map, or a point each beside its quality.

Families have small charts of their own with common axes, each before all others in grey.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from visionattn.visualization.label_places import spread_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's without yellow, darkened where thin lines on white need it, and a brown.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#3b9ccf", "#c98a00", "#7a5230", "#5d6675")
_MARKERS = "osD^vPX*"
_STYLE: dict[Any, Any] = {"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}
_MOST_MEMBERS = 8
_COLUMNS = 2
_PANEL = (5.2, 3.1)  # inches, names included
_NAMES = 0.45  # the share of a panel's width that is left to names
_MARGIN = 1.05  # inches at the left, for six digits and a unit
_LEAST_ERROR = 0.01  # percent: there is no logarithm of 0
_QUALITIES = (0, 20, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)  # where an axis of qualities may have a mark


@dataclass(frozen=True)
class CostLine:
    """One mechanism's cost over the size of the map.

    Attributes:
        name: as it is written beside the line.
        family: the small chart that it is in.
        points: (tokens, cost), the tokens ascending, all above 0.
        cut: larger maps were left out.
    """

    name: str
    family: str
    points: Sequence[tuple[int, float]]
    cut: bool = False


def draw_cost_lines(
    lines: Sequence[CostLine],
    path: Path,
    *,
    title: str,
    unit: str,
    reference: str,
    ticks: Mapping[int, str],
    families: Sequence[str],
) -> None:
    """Writes a PNG of small charts, one for each family, with common axes, all lines in grey behind each.

    Args:
        lines: those without points are left out; a family of more than eight is cut in two.
        title: above all of them.
        unit: of the cost, beside the axes.
        reference: name of the line that is drawn in all charts.
        ticks: what is written at these numbers of tokens.
        families: their order.
    Raises:
        ValueError: no line has a point.
    """
    import matplotlib

    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError(f"{title}: no line has a point that can be drawn")
    panels = _panels(lines, families)
    note = f"dashed: {reference}; grey: all others" + ("; x: larger maps were left out" if _any_cut(lines) else "")
    with matplotlib.rc_context(_STYLE):
        figure = _small_charts([heading for heading, _ in panels], title, note, "map", unit)
        for axes, (_, members) in zip(figure.axes, panels, strict=True):
            _panel(axes, members, lines, reference)
            axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:,g}")
        _same_limits(figure.axes)
        for axes, (_, members) in zip(figure.axes, panels, strict=True):
            shown = _with_reference(members, lines, reference)
            _write_names(axes, [(line.name, colour, line.points[-1]) for line, colour in shown])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _any_cut(lines: Sequence[CostLine]) -> bool:
    return any(line.cut for line in lines)


Member = TypeVar("Member", CostLine, "CostPoint")


def _panels(members: Sequence[Member], families: Sequence[str]) -> list[tuple[str, list[Member]]]:
    panels = []
    for family in families:
        own = sorted((member for member in members if member.family == family), key=lambda member: member.name)
        parts = math.ceil(len(own) / _MOST_MEMBERS)
        for part in range(parts):
            chosen = own[part * len(own) // parts : (part + 1) * len(own) // parts]
            panels.append((f"{family} ({part + 1})" if parts > 1 else family, chosen))
    return panels


def _small_charts(headings: Sequence[str], title: str, note: str, x_label: str, y_label: str) -> Figure:
    """A figure with one empty chart for each heading, and room for names to the right of each."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(headings))
    rows = math.ceil(len(headings) / columns)
    size = (columns * _PANEL[0] + _MARGIN - 0.45, rows * _PANEL[1] + 0.75)
    figure = Figure(figsize=size)
    figure.suptitle(title, x=0.2 / size[0], y=1 - 0.12 / size[1], ha="left", va="top", fontsize=12, weight="bold")
    figure.text(0.2 / size[0], 1 - 0.38 / size[1], note, ha="left", va="top", color="0.35")
    for index, heading in enumerate(headings):
        axes = figure.add_axes(_place(index, columns, rows, size))
        axes.set_title(heading, loc="left", fontsize=10.5, pad=6)
        axes.grid(True, which="major", color="0.92", linewidth=0.8)
        axes.set_axisbelow(True)
        if index % columns == 0:
            axes.set_ylabel(y_label)
        if index >= len(headings) - columns:
            axes.set_xlabel(x_label)
    return figure


def _place(index: int, columns: int, rows: int, size: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a chart in shares of the figure, its names to the right of it."""
    row, column = divmod(index, columns)
    left = _MARGIN + column * _PANEL[0]
    bottom = size[1] - 0.7 - (row + 1) * _PANEL[1] + 0.5
    width, height = _PANEL[0] * (1 - _NAMES) - 0.25, _PANEL[1] - 0.75
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def _panel(axes: Axes, members: Sequence[CostLine], lines: Sequence[CostLine], reference: str) -> None:
    axes.set(xscale="log", yscale="log")
    for line in lines:
        axes.plot(*zip(*line.points, strict=True), color="0.82", linewidth=0.7, zorder=1)
    for index, line in enumerate(members):
        colour, marker = _style(index)
        axes.plot(*zip(*line.points, strict=True), color=colour, marker=marker, markersize=4.5, linewidth=1.7, zorder=3)
        if line.cut:
            axes.plot(*line.points[-1], color=colour, marker="x", markersize=9, markeredgewidth=1.6, zorder=4)
    for line in lines:
        if line.name == reference:
            axes.plot(*zip(*line.points, strict=True), color="black", linestyle=(0, (4, 2)), linewidth=1.4, zorder=4)


def _style(index: int) -> tuple[str, str]:
    return _COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]


def _same_limits(panels: Sequence[Axes]) -> None:
    for limits, names in (
        ([axes.get_xlim() for axes in panels], "xlim"),
        ([axes.get_ylim() for axes in panels], "ylim"),
    ):
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        for axes in panels:
            axes.set(**{names: (low, high)})


def _with_reference(members: Sequence[Member], everyone: Sequence[Member], reference: str) -> list[tuple[Member, str]]:
    """The members of a chart in their colours, and the reference in black where it is none of them."""
    shown = [(member, _style(index)[0]) for index, member in enumerate(members)]
    return shown + [(one, "black") for one in everyone if one.name == reference and one not in members]


def _write_names(axes: Axes, named: Sequence[tuple[str, str, tuple[float, float]]]) -> None:
    """Names in their colours to the right of a chart, pushed apart where they would lie on each other.

    Args:
        named: name, colour, and the place in the chart that it belongs to.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(to_axes.transform(place)[1]) for _, _, place in named]
    for (name, colour, place), height in zip(named, spread_apart(ends, gap=0.075), strict=True):
        axes.annotate(
            name,
            xy=place,
            xytext=(1.05, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


@dataclass(frozen=True)
class CostPoint:
    """One mechanism in a chart of quality against cost: its mean, lowest and highest quality, in percent."""

    name: str
    family: str
    cost: float
    quality: float
    lowest: float
    highest: float


def draw_cost_points(
    points: Sequence[CostPoint],
    path: Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    reference: str,
    families: Sequence[str],
) -> None:
    """Writes a PNG of quality against cost in small charts, one for each family, with common axes.

    What is missing to 100 % has a logarithmic axis, on which 99.0 and 99.5 lie as far from each other as 80 and 90.

    Args:
        points: a family of more than eight is cut in two.
        reference: name of the point that is named in all charts.
        families: their order.
    Raises:
        ValueError: there is no point.
    """
    import matplotlib

    if not points:
        raise ValueError(f"{title}: there is no point to draw")
    panels = _panels(points, families)
    with matplotlib.rc_context(_STYLE):
        note = f"mark: mean; bar: lowest to highest; black: {reference}; grey: all others"
        figure = _small_charts([heading for heading, _ in panels], title, note, x_label, y_label)
        for axes, (_, members) in zip(figure.axes, panels, strict=True):
            _points_panel(axes, members, points, reference)
        _same_limits(figure.axes)
        for axes, (_, members) in zip(figure.axes, panels, strict=True):
            shown = _with_reference(members, points, reference)
            _write_names(axes, [(point.name, colour, (point.cost, point.quality)) for point, colour in shown])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _points_panel(axes: Axes, members: Sequence[CostPoint], points: Sequence[CostPoint], reference: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("function", functions=(_height, _quality))
    axes.plot([point.cost for point in points], [point.quality for point in points], "o", color="0.82", markersize=4)
    for point, colour in _with_reference(members, points, reference):
        marker = "D" if colour == "black" else _style(members.index(point))[1]
        style: dict[str, Any] = {"color": colour, "markersize": 6, "elinewidth": 1, "zorder": 3}
        bar = [[point.quality - point.lowest], [point.highest - point.quality]]
        axes.errorbar(point.cost, point.quality, bar, fmt=marker, **style)
    low, high = _height(min(point.lowest for point in points)), _height(max(point.highest for point in points))
    room = 0.08 * (high - low) or 0.1
    axes.set_ylim(_quality(low - room), _quality(high + room))
    marks = _marks(low - room, high + room)
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.margins(x=0.08)
    axes.xaxis.set_major_formatter("{x:,g}")


def _marks(low: float, high: float) -> list[float]:
    """Qualities to write on an axis between two heights, from above, none so near the last that their names touch."""
    marks: list[float] = []
    for mark in sorted(_QUALITIES, reverse=True):
        apart = not marks or _height(marks[-1]) - _height(mark) > 0.06 * (high - low)
        if low <= _height(mark) <= high and apart:
            marks.append(mark)
    return marks


def _height(quality: Any) -> Any:
    """Where qualities lie on their axis: minus the logarithm of what is missing."""
    return -np.log10(np.maximum(100.0 - np.asarray(quality), _LEAST_ERROR))


def _quality(height: Any) -> Any:
    return 100.0 - 10.0 ** -np.asarray(height)

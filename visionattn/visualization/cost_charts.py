"""Charts of what mechanisms cost: one line each over the tokens of the map, in small charts of few lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visionattn.visualization.label_places import free_places, spread_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's without yellow, darkened where thin lines on white need it, and a brown.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b8578f", "#3b9ccf", "#c98a00", "#7a5230", "#5d6675")
_MARKERS = "osD^vPX*"
_MOST_LINES = 8
_COLUMNS = 2
_PANEL = (5.2, 3.1)  # inches, names included
_NAMES = 0.45  # the share of a panel's width that is left to names
_MARGIN = 1.05  # inches at the left, for six digits and a unit


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
    from matplotlib.figure import Figure

    lines = [line for line in lines if line.points]
    if not lines:
        raise ValueError(f"{title}: no line has a point that can be drawn")
    panels = _panels(lines, families)
    rows = math.ceil(len(panels) / _COLUMNS)
    columns = min(_COLUMNS, len(panels))
    with matplotlib.rc_context({"font.size": 9.5, "axes.spines.top": False, "axes.spines.right": False}):
        size = (columns * _PANEL[0] + _MARGIN - 0.45, rows * _PANEL[1] + 0.75)
        figure = Figure(figsize=size)
        figure.suptitle(title, x=0.2 / size[0], y=1 - 0.12 / size[1], ha="left", va="top", fontsize=12, weight="bold")
        note = f"dashed: {reference}; grey: all others" + ("; x: larger maps were left out" if _any_cut(lines) else "")
        figure.text(0.2 / size[0], 1 - 0.38 / size[1], note, ha="left", va="top", color="0.35")
        for index, (heading, members) in enumerate(panels):
            axes = figure.add_axes(_place(index, columns, rows, size))
            _panel(axes, heading, members, lines, reference)
            axes.set_xlim(min(ticks) / 1.25, max(ticks) * 1.25)
            axes.set_xticks(list(ticks), list(ticks.values()))
            axes.minorticks_off()
            axes.yaxis.set_major_formatter("{x:,g}")
            if index % columns == 0:
                axes.set_ylabel(unit)
            if index >= len(panels) - columns:
                axes.set_xlabel("map")
        _same_heights(figure.axes)
        for axes, (_, members) in zip(figure.axes, panels, strict=True):
            _write_names(axes, members, [line for line in lines if line.name == reference])
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _any_cut(lines: Sequence[CostLine]) -> bool:
    return any(line.cut for line in lines)


def _panels(lines: Sequence[CostLine], families: Sequence[str]) -> list[tuple[str, list[CostLine]]]:
    panels = []
    for family in families:
        members = sorted((line for line in lines if line.family == family), key=lambda line: line.name)
        parts = math.ceil(len(members) / _MOST_LINES)
        for part in range(parts):
            chosen = members[part * len(members) // parts : (part + 1) * len(members) // parts]
            panels.append((f"{family} ({part + 1})" if parts > 1 else family, chosen))
    return panels


def _place(index: int, columns: int, rows: int, size: tuple[float, float]) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a chart in shares of the figure, its names to the right of it."""
    row, column = divmod(index, columns)
    left = _MARGIN + column * _PANEL[0]
    bottom = size[1] - 0.7 - (row + 1) * _PANEL[1] + 0.5
    width, height = _PANEL[0] * (1 - _NAMES) - 0.25, _PANEL[1] - 0.75
    return left / size[0], bottom / size[1], width / size[0], height / size[1]


def _panel(axes: Axes, heading: str, members: Sequence[CostLine], lines: Sequence[CostLine], reference: str) -> None:
    axes.set(xscale="log", yscale="log")
    axes.set_title(heading, loc="left", fontsize=10.5, pad=6)
    axes.grid(True, which="major", color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
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


def _same_heights(panels: Sequence[Axes]) -> None:
    low, high = (pick(axes.get_ylim()[end] for axes in panels) for pick, end in ((min, 0), (max, 1)))
    for axes in panels:
        axes.set_ylim(low, high)


def _write_names(axes: Axes, members: Sequence[CostLine], references: Sequence[CostLine]) -> None:
    """Beside the ends of the lines, pushed apart where they would lie on each other, in the lines' colours."""
    shown = [(line, _style(index)[0]) for index, line in enumerate(members)]
    shown += [(line, "black") for line in references if line not in members]
    low, high = (math.log10(end) for end in axes.get_ylim())
    ends = [(math.log10(line.points[-1][1]) - low) / (high - low) for line, _ in shown]
    for (line, colour), place in zip(shown, spread_apart(ends, gap=0.075), strict=True):
        axes.annotate(
            line.name,
            xy=line.points[-1],
            xytext=(1.05, place),
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
    """One mechanism in a chart of quality against cost: `spread` is drawn to both sides of `quality`."""

    name: str
    family: str
    cost: float
    quality: float
    spread: float = 0.0


def draw_cost_points(
    points: Sequence[CostPoint], path: Path, *, title: str, x_label: str, y_label: str, families: Sequence[str]
) -> None:
    """Writes a PNG of quality against cost, every point with its name, families in colours.

    Raises:
        ValueError: there is no point.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not points:
        raise ValueError(f"{title}: there is no point to draw")
    with matplotlib.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(11.5, 8.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", xlabel=x_label, ylabel=y_label)
        axes.xaxis.set_major_formatter("{x:,g}")
        axes.set_title(title, loc="left", weight="bold")
        axes.grid(True, which="major", color="0.92")
        axes.set_axisbelow(True)
        colours: dict[str, str] = {}
        for index, family in enumerate(family for family in families if any(p.family == family for p in points)):
            colours[family] = _style(index)[0]
            members = [point for point in points if point.family == family]
            axes.errorbar(
                [point.cost for point in members],
                [point.quality for point in members],
                [point.spread for point in members],
                fmt=_style(index)[1],
                color=colours[family],
                markersize=6,
                elinewidth=0.8,
                ecolor=matplotlib.colors.to_rgba(colours[family], 0.35),
                label=family,
            )
        axes.margins(x=0.12, y=0.08)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, -0.08), ncols=4)
        figure.draw_without_rendering()  # or nothing has its place yet
        places = axes.transData.transform([(point.cost, point.quality) for point in points])
        widths = [6.4 * len(point.name) * figure.dpi / 100 for point in points]
        found = free_places([(float(x), float(y)) for x, y in places], widths, height=12.5 * figure.dpi / 100)
        for point, (dx, dy, side) in zip(points, found, strict=True):
            name = axes.annotate(
                point.name,
                xy=(point.cost, point.quality),
                xytext=(dx * 72 / figure.dpi, dy * 72 / figure.dpi),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=8.5,
                color=colours[point.family],
                arrowprops={"arrowstyle": "-", "color": "0.7", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3},
            )
            name.set_in_layout(False)  # the axes stay where they were when the places were found
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)

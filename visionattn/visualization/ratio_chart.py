"""A chart of ratios: one line per measured row, one mark per form, to the right of 1 where ours is faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's without yellow, darkened where thin marks on white need it, and a brown.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#b8578f", "#c98a00", "#3b9ccf", "#7a5230", "#5d6675", "#000000")
_MARKERS = "osD^vPX*<"
_LINE = 0.27  # inches
_ABOVE, _BELOW = 1.2, 0.65
_LEFT, _WIDTH, _RIGHT = 5.6, 5.0, 2.0


@dataclass(frozen=True)
class RatioRow:
    """One measured row.

    Attributes:
        group: rows of one group stand together under its name.
        label: what was measured.
        way: of measuring; "forward".
        ms: our time.
        share: of the device's copying rate that ours reaches.
        others: time over ours, by form.
    """

    group: str
    label: str
    way: str
    ms: float
    share: float
    others: Mapping[str, float]


def draw_ratios(rows: Sequence[RatioRow], path: Path, *, title: str, note: str, hollow: Set[str] = frozenset()) -> None:
    """Writes a PNG.

    Args:
        title, note: above the chart.
        hollow: forms that answer another question; their marks are not filled.
    Raises:
        ValueError: there is no row.
    """
    import matplotlib
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError(f"{title}: there is no row to draw")
    headings, places, bottom = _places(rows)
    height = _ABOVE + _BELOW + bottom * _LINE
    size = (_LEFT + _WIDTH + _RIGHT, height)
    with matplotlib.rc_context({"font.size": 9.5}):
        figure = Figure(figsize=size)
        figure.text(0.2 / size[0], 1 - 0.12 / height, title, ha="left", va="top", fontsize=13, weight="bold")
        figure.text(0.2 / size[0], 1 - 0.42 / height, note, ha="left", va="top", color="0.35")
        axes = figure.add_axes((_LEFT / size[0], _BELOW / height, _WIDTH / size[0], 1 - (_ABOVE + _BELOW) / height))
        axes.set(xscale="log", ylim=(bottom - 0.5, -0.7))
        axes.axvline(1.0, color="black", linewidth=1.2, zorder=1)
        _write(axes, rows, headings, places)
        for index, name in enumerate(dict.fromkeys(name for row in rows for name in row.others)):
            colour = _COLOURS[index % len(_COLOURS)]
            axes.scatter(
                [row.others[name] for row in rows if name in row.others],
                [place for row, place in zip(rows, places, strict=True) if name in row.others],
                s=34,
                marker=_MARKERS[index % len(_MARKERS)],
                facecolors="none" if name in hollow else colour,
                edgecolors=colour,
                label=name,
                zorder=3,
            )
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.set_yticks([])
        _mark_ratios(axes)
        figure.legend(
            frameon=False,
            ncols=len(_COLOURS),
            loc="upper left",
            bbox_to_anchor=(0.1 / size[0], 1 - 0.76 / height),
            columnspacing=1.2,
            handletextpad=0.2,
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _places(rows: Sequence[RatioRow]) -> tuple[dict[str, float], list[float], float]:
    """The heights of the groups' names and of the rows, in lines from the top, and that of the end."""
    headings: dict[str, float] = {}
    places, place, last = [], -0.5, None
    for row in rows:
        if row.group not in headings:
            headings[row.group] = place = place + 0.5
            place += 1.0
        elif last is not None and last.label != row.label:
            place += 0.25  # what is measured in several ways stands together
        places.append(place)
        place += 1.0
        last = row
    return headings, places, place


def _write(axes: Axes, rows: Sequence[RatioRow], headings: Mapping[str, float], places: Sequence[float]) -> None:
    """The words and numbers at both sides."""
    left, top = (0.2 - _LEFT) / _WIDTH, -0.05

    def write(x: float, y: float, text: str, side: Literal["left", "right"], *, strong: bool = False) -> None:
        weight, colour = ("bold", "black") if strong else ("normal", "0.15")
        axes.text(
            x,
            y,
            text,
            transform=axes.get_yaxis_transform(),
            ha=side,
            va="center",
            fontsize=9.5 if strong else 8.5,
            weight=weight,
            color=colour,
        )

    for group, place in headings.items():
        write(left, place, group, "left", strong=True)
    before = None
    for row, place in zip(rows, places, strict=True):
        axes.axhline(place, color="0.92", linewidth=0.8, zorder=0)
        if before is None or (before.group, before.label) != (row.group, row.label):
            write(left + 0.02, place, row.label, "left")
        write(-0.015, place, row.way, "right")
        write(1.17, place, f"{row.ms:,.0f} ms" if row.ms >= 100 else f"{row.ms:.3g} ms", "right")
        write(1.36, place, f"{row.share:.0%}" if row.share >= 0.01 else f"{row.share:.1%}", "right")
        before = row
    write(1.17, top, "ours", "right", strong=True)
    write(1.36, top, "of copying", "right", strong=True)


def _mark_ratios(axes: Axes) -> None:
    """1, 2, 5, 10 ... times."""
    low, high = axes.get_xlim()
    low, high = min(low, 0.8), max(high, 2.2)
    axes.set_xlim(low, high)
    ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}x")
    axes.minorticks_off()
    axes.set_xlabel("how many times our time; right of the line ours is faster")

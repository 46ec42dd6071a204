"""Charts of costs are drawn, and what cannot be drawn is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from visionattn.visualization.cost_charts import (
    CostLine,
    CostPoint,
    _height,
    _panels,
    _quality,
    draw_cost_lines,
    draw_cost_points,
)

TICKS = {256: "16x16", 1024: "32x32"}


def draw(lines: list[CostLine], path: Path) -> np.ndarray:
    draw_cost_lines(
        lines, path, title="Time", unit="ms", reference="Soft", ticks=TICKS, families=["first", "second", "others"]
    )
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(int)


def colour_of(picture: np.ndarray, rgb: tuple[int, int, int]) -> int:
    return int((np.abs(picture - rgb).max(axis=-1) < 8).sum())


def test_a_family_of_many_is_cut_and_orders_are_kept() -> None:
    lines = [CostLine(f"M{n:02}", "second", [(256, 1.0)]) for n in range(11)] + [CostLine("A", "first", [(256, 1.0)])]
    panels = _panels(lines, ["first", "second"])
    assert [(heading, len(members)) for heading, members in panels] == [
        ("first", 1),
        ("second (1)", 5),
        ("second (2)", 6),
    ]
    assert [line.name for _, members in panels[1:] for line in members] == [f"M{n:02}" for n in range(11)]


def test_every_line_is_there_in_its_colour(tmp_path: Path) -> None:
    lines = [
        CostLine("Soft", "first", [(256, 1.0), (1024, 16.0)]),
        CostLine("Cut", "second", [(256, 2.0)], cut=True),
        CostLine("Whole", "second", [(256, 3.0), (1024, 12.0)]),
        CostLine("Nothing", "others", []),
    ]
    picture = draw(lines, tmp_path / "new" / "chart.png")
    blue, orange = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
    assert colour_of(picture, blue) > 100  # the first of a panel: Soft, Cut
    assert colour_of(picture, orange) > 200  # Whole
    without = draw(lines[:2], tmp_path / "chart.png")
    assert colour_of(without, orange) == 0
    assert picture.shape == without.shape  # two charts side by side in both


def test_numbers_of_six_digits_leave_room_for_the_unit(tmp_path: Path) -> None:
    picture = draw([CostLine("Soft", "first", [(256, 1.0), (1024, 900_000.0)])], tmp_path / "chart.png")
    assert (picture[:, :4] == 255).all()


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Time: no line has a point"):
        draw([CostLine("Nothing", "first", [])], tmp_path / "chart.png")
    with pytest.raises(ValueError, match="Quality: there is no point"):
        draw_points([], tmp_path / "chart.png")


def draw_points(points: list[CostPoint], path: Path) -> np.ndarray:
    families = ["first", "second", "third"]
    draw_cost_points(points, path, title="Quality", x_label="ms", y_label="%", reference="Soft", families=families)
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(int)


def test_points_are_named_in_their_family_s_chart(tmp_path: Path) -> None:
    """Nearly all of one cost and quality, as mechanisms that have learned a task are; one has all of it."""
    points = [CostPoint(f"Mechanism{n:02}", "second", 1.0 + n / 100, 99.0 + n / 100, 98.9, 99.2) for n in range(8)]
    points += [CostPoint("Soft", "first", 30, 100, 100, 100), CostPoint("Poor", "third", 400.0, 50.0, 48.0, 52.0)]
    picture = draw_points(points, tmp_path / "points.png")
    blue, grey = (0x00, 0x72, 0xB2), (0x5D, 0x66, 0x75)
    assert colour_of(picture, blue) > 150  # the first of each of three charts
    assert colour_of(picture, grey) > 50  # the eighth of the second
    border = np.concatenate([picture[:, :4], picture[:, -4:]], axis=1)
    assert (border == 255).all(), "something is cut at the sides"
    without = draw_points(points[1:], tmp_path / "fewer.png")
    assert colour_of(without, grey) < 20
    assert without.shape == picture.shape


def test_no_name_lies_on_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    points = [CostPoint(f"Mechanism{n:02}", "first", 1.0 + n, 99.1 + n / 1000, 99.1, 99.2) for n in range(8)]
    draw_points([*points, CostPoint("Poor", "second", 5.0, 50.0, 0.0, 99.9)], tmp_path / "points.png")
    boxes = [Text.get_window_extent(name) for name in figures[0].axes[0].texts]  # without the lines to the points
    assert len(boxes) == 8
    for index, box in enumerate(boxes):
        assert box.x1 < figures[0].bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:index])
    marks = [Text.get_window_extent(mark) for mark in figures[0].axes[0].get_yticklabels()]
    assert len(marks) >= 5
    assert not any(mark.overlaps(other) for index, mark in enumerate(marks) for other in marks[:index])


def test_a_bar_ends_at_the_lowest_and_the_highest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and deviation of qualities near 100 % would leave the axis; what was seen does not."""
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k)))
    points = [CostPoint("Soft", "first", 3.0, 99.0, 98.0, 99.5), CostPoint("Wide", "first", 5.0, 83.0, 55.0, 99.2)]
    draw_points(points, tmp_path / "points.png")
    axes = figures[0].axes[0]
    ends = [path.vertices[:, 1].tolist() for bar in axes.collections for path in bar.get_paths()]
    assert sorted(ends) == [[55.0, 99.2], [98.0, 99.5]]
    low, high = axes.get_ylim()
    assert low < 55.0
    assert high > 99.5


def test_qualities_near_all_lie_apart_by_what_they_miss() -> None:
    assert _height(99.5) - _height(99.0) == pytest.approx(_height(90.0) - _height(80.0))
    assert np.isfinite(_height(100.0))
    assert _quality(_height(73.5)) == pytest.approx(73.5)

"""Charts of costs are drawn, and what cannot be drawn is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from visionattn.visualization.cost_charts import CostLine, CostPoint, _panels, draw_cost_lines, draw_cost_points

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
        draw_cost_points([], tmp_path / "p.png", title="Quality", x_label="", y_label="", families=[])


def test_points_have_their_families_colours(tmp_path: Path) -> None:
    points = [CostPoint("A", "first", 1.0, 90.0, 2.0), CostPoint("B", "second", 1.1, 90.1)]
    path = tmp_path / "points.png"
    draw_cost_points(points, path, title="Quality", x_label="ms", y_label="%", families=["first", "second"])
    picture = cv2.imread(str(path))
    assert picture is not None
    for rgb in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert colour_of(picture[..., ::-1].astype(int), rgb) > 50

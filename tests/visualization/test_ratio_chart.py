"""The chart of ratios: what is written beside each other must not overlap."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from visionattn.visualization.ratio_chart import RatioRow, _places, draw_ratios


def row(group: str, label: str, way: str, **others: float) -> RatioRow:
    return RatioRow(group, label, way, 1.5, 0.004, others)


ROWS = [
    row("first", "64x64", "forward", peer=2.0, other=0.4),
    row("first", "64x64", "forward + backward", peer=1.0),
    row("first", "128x128", "forward", other=300.0),
    row("second", "64x64", "forward"),
]


def test_rows_stand_below_their_group_apart_from_each_other() -> None:
    headings, places, bottom = _places(ROWS)
    assert list(headings) == ["first", "second"]
    order = [headings["first"], *places[:3], headings["second"], places[3], bottom]
    assert all(below - above >= 1.0 for above, below in pairwise(order))


def test_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ratios.png"
    draw_ratios(ROWS, path, title="Ratios", note="a machine", hollow={"other"})
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="Ratios: there is no row to draw"):
        draw_ratios([], path, title="Ratios", note="")

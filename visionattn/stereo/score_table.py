"""An evaluation's figures as a table in plain characters."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from math import isnan

from rich import box
from rich.console import Console
from rich.table import Table

REGIONS = {"all": "all", "noc": "non-occluded", "fg": "foreground", "bg": "background"}
"""Parts of an image that are evaluated by themselves, and what a reader calls them."""

_POOLED = "-pixels"


def score_table(figures: Mapping[str, Mapping[str, float]], images: Mapping[str, int]) -> str:
    """A row for each region, and one more where figures of pooled pixels stand beside those of images.

    EPE is in pixels, all others in percent.

    Args:
        figures: region -> names and values, as a protocol gives them.
        images: region -> how many images have it and a pixel that counts there.
    """
    columns = list(dict.fromkeys(name.removesuffix(_POOLED) for some in figures.values() for name in some))
    columns.sort(key=lambda name: (name != "EPE", name != "D1"))
    table = Table(box=box.ASCII, padding=(0, 1))
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("images", justify="right")
    for region, some in figures.items():
        pooled = {name.removesuffix(_POOLED): value for name, value in some.items() if name.endswith(_POOLED)}
        rows = {REGIONS[region] + (", by image" if pooled else ""): some}
        if pooled:
            rows[f"{REGIONS[region]}, by pixel"] = pooled
        for title, values in rows.items():
            table.add_row(title, *(_written(values.get(name), name) for name in columns), f"{images[region]:,}")
    console = Console(file=StringIO(), width=40 + 14 * len(columns), color_system=None, markup=False)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _written(value: float | None, name: str) -> str:
    if value is None or isnan(value):
        return "-"
    return f"{value:.4f}" if name == "EPE" else f"{value:.2f}"

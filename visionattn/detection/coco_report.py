"""COCO's figures for people: a table of the classes, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from visionattn.detection.coco_scores import CocoScores

_MOST_ROWS, _ENDS = 100, 10
"""Classes of a table; of more, so many of the lowest and of the highest AP."""


def class_table(scores: CocoScores, classes: Mapping[int, str]) -> str:
    """A row for each class that has objects, in plain characters; below it how many have none."""
    there = [(number, values) for number, values in scores.classes.items() if values["objects"]]
    lines = []
    if there:
        columns = list(there[0][1])
        shown = there if len(there) <= _MOST_ROWS else _lowest_and_highest(there)
        table = Table(box=box.ASCII)
        table.add_column("class")
        for heading in columns:
            table.add_column(heading, justify="right")
        for number, values in shown:
            *figures, objects = values.values()
            table.add_row(classes[number], *(f"{figure:.3f}" for figure in figures), f"{int(objects):,}")
        width = 60 + max(len(classes[number]) for number, _ in shown)
        console = Console(file=StringIO(), width=width, color_system=None, markup=False)
        console.print(table)
        lines.append(console.file.getvalue().rstrip())  # type: ignore[attr-defined]
        if len(shown) < len(there):
            lines.append(f"the {_ENDS} lowest and the {_ENDS} highest of {len(there):,} classes; coco.json has all")
    without = [classes[number] for number, values in scores.classes.items() if not values["objects"]]
    if without:
        named = ", ".join(without[:8]) + (", ..." if len(without) > 8 else "")
        lines.append(f"without an object here: {named} ({len(without):,})")
    return "\n".join(lines)


def _lowest_and_highest(there: list[tuple[int, dict[str, float]]]) -> list[tuple[int, dict[str, float]]]:
    by_precision = sorted(there, key=lambda item: item[1]["AP"])
    return by_precision[:_ENDS] + by_precision[-_ENDS:]


def figures_line(kind: str, scores: CocoScores) -> str:
    """The twelve figures in one line."""
    return f"{kind} " + "  ".join(f"{name} {value:.4f}" for name, value in scores.figures.items())


def replace_file(path: Path, content: str) -> None:
    """Writes a file beside `path` and puts it in its place: who reads meanwhile sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)

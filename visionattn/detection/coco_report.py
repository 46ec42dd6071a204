"""COCO's figures for people: a table of the classes, and files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from math import isnan
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from visionattn.detection.coco_scores import CocoScores


def class_table(scores: CocoScores, classes: Mapping[int, str]) -> str:
    """A row for each class, in plain characters."""
    table = Table(box=box.ASCII)
    table.add_column("class")
    for heading in ("AP", "AP50", "AR100", "objects"):
        table.add_column(heading, justify="right")
    for number, values in scores.classes.items():
        figures = ("-" if isnan(values[name]) else f"{values[name]:.3f}" for name in ("AP", "AP50", "AR100"))
        table.add_row(classes[number], *figures, f"{int(values['objects']):,}")
    console = Console(file=StringIO(), width=60 + max(map(len, classes.values())), color_system=None, markup=False)
    console.print(table)
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def figures_line(kind: str, scores: CocoScores) -> str:
    """The twelve figures in one line."""
    return f"{kind} " + "  ".join(f"{name} {value:.4f}" for name, value in scores.figures.items())


def replace_file(path: Path, content: str) -> None:
    """Writes a file beside `path` and puts it in its place: who reads meanwhile sees the old one or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(content, encoding="utf-8")
    beside.replace(path)

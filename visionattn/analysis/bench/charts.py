"""The charts of a bench's report, and of its cost beside the accuracy of a trained task."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from visionattn.analysis.bench.families import families
from visionattn.visualization.cost_charts import CostLine, CostPoint, draw_cost_lines, draw_cost_points

REFERENCE = "SoftmaxAttention"
PATTERNS = {"self": "self-attention", "causal-self": "causal self-attention", "cross": "attention to another map"}
WAYS = {"forward": "forward", "training": "forward and backward"}
_WHATS = {
    "ms": ("time", "ms", 1.0),
    "peak_bytes": ("peak memory beside the weights", "MB", 1e-6),
    "forward_macs": ("multiply-accumulates", "millions", 1e-6),
}
_CHARTS = (
    ("forward", "ms", "forward_time"),
    ("training", "ms", "training_time"),
    ("training", "peak_bytes", "training_memory"),
    ("forward", "forward_macs", "multiplications"),
)

Accuracy = Mapping[str, tuple[float, float, float]]
"""Mean, lowest and highest of the seeds by mechanism, in percent."""


def read_report(path: Path) -> dict[str, Any]:
    """A bench.json.

    Raises:
        ValueError: the file is none.
    """
    report = _read(path)
    if not isinstance(report, dict) or report.get("bench") != "visionattn attention bench":
        raise ValueError(f"{path} is no report of `visionattn attention bench`")
    return report


def read_accuracy(path: Path) -> dict[str, Accuracy]:
    """By task, of a file as `benchmarks/longrange.py` writes it: {"cells": {"task | mechanism | seed": {"mIoU": 90}}}.

    Raises:
        ValueError: there is no such cell in it.
    """
    found = _read(path)
    cells = found.get("cells") if isinstance(found, dict) else None
    scores: dict[str, dict[str, list[float]]] = {}
    for name, cell in (cells or {}).items():
        parts = name.split(" | ")
        if len(parts) == 3 and isinstance(cell, dict) and "mIoU" in cell:
            scores.setdefault(parts[0], {}).setdefault(parts[1], []).append(float(cell["mIoU"]))
    if not scores:
        raise ValueError(f'{path} has no accuracies; expected {{"cells": {{"task | AFTFull | 0": {{"mIoU": 90.0}}}}}}')
    return {
        task: {name: (mean(of), min(of), max(of)) for name, of in by_name.items()} for task, by_name in scores.items()
    }


def draw_charts(report: Mapping[str, Any], folder: Path, accuracy: Mapping[str, Accuracy] | None = None) -> list[Path]:
    """Writes a PNG for every pattern and kind of cost that has figures, and one of accuracy against cost a task.

    Args:
        accuracy: by task.
    Returns:
        The files.
    """
    drawn = []
    ticks = ticks_of(report)
    for device in report["machines"]:
        prefix = "" if len(report["machines"]) == 1 else f"{device.replace(':', '')}_"
        for pattern in report["settings"]["patterns"]:
            for way, what, file in _CHARTS:
                lines = cost_lines(report, pattern, way, what, device)
                if not any(line.points for line in lines):
                    continue
                heading, unit, _ = _WHATS[what]
                done = "" if what == "forward_macs" else f", {WAYS[way]}"
                path = folder / f"{prefix}{pattern.replace('-', '_')}_{file}.png"
                draw_cost_lines(
                    lines,
                    path,
                    title=f"{PATTERNS[pattern][0].upper()}{PATTERNS[pattern][1:]}{done}: {heading}",
                    unit=unit,
                    reference=REFERENCE,
                    ticks=ticks,
                    families=families(),
                )
                drawn.append(path)
        for task, reached in (accuracy or {}).items():
            path = folder / f"{prefix}accuracy_{task}.png"
            draw_accuracy(report, device, task, reached, path)
            drawn.append(path)
    return drawn


def cost_lines(report: Mapping[str, Any], pattern: str, way: str, what: str, device: str) -> list[CostLine]:
    """Every mechanism's line.

    Args:
        pattern, way, device: of the report's rows.
        what: "ms", "peak_bytes" or "forward_macs" of a row.
    """
    scale, lines = _WHATS[what][2], []
    chosen = [r for r in report["rows"] if (r["pattern"], r["pass"], r["device"]) == (pattern, way, device)]
    for name, about in report["mechanisms"].items():
        rows = [row for row in chosen if row["mechanism"] == name]
        points = sorted((row["tokens"], scale * row[what]) for row in rows if row[what])
        cut = what != "forward_macs" and any(row["left_out"] is not None for row in rows)
        lines.append(CostLine(name, about["family"], points, cut))
    return lines


def draw_accuracy(report: Mapping[str, Any], device: str, task: str, accuracy: Accuracy, path: Path) -> None:
    """Accuracy against the time of forward and backward on the largest map that most of the mechanisms have.

    Raises:
        ValueError: the report and the accuracies have no mechanism in common.
    """
    times: dict[int, dict[str, float]] = {}
    for row in report["rows"]:
        of_interest = (row["pattern"], row["pass"], row["device"]) == ("self", "training", device)
        if of_interest and row["ms"] is not None and row["mechanism"] in accuracy:
            times.setdefault(row["tokens"], {})[row["mechanism"]] = row["ms"]
    if not times:
        raise ValueError(f"no mechanism that {task} has an accuracy of was timed: nothing to draw")
    tokens = max(times, key=lambda tokens: (len(times[tokens]), tokens))
    mechanisms = report["mechanisms"]
    draw_cost_points(
        [CostPoint(name, mechanisms[name]["family"], ms, *accuracy[name]) for name, ms in times[tokens].items()],
        path,
        title=f"Accuracy on the task {task} against the cost of one layer",
        x_label=f"forward and backward of one layer on a map of {ticks_of(report)[tokens]}, ms",
        y_label="mIoU, %",
        reference=REFERENCE,
        families=families(),
    )


def ticks_of(report: Mapping[str, Any]) -> dict[int, str]:
    """The grids as they are written, by their tokens."""
    grids = report["settings"]["grids"]
    return {math.prod(grid): "x".join(map(str, grid)) for grid in grids}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error

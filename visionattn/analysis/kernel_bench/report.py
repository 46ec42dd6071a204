"""The report of the benchmark as a file and as a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionattn.analysis.kernel_bench.run import NAME
from visionattn.visualization.ratio_chart import RatioRow, draw_ratios


def read_report(path: Path) -> dict[str, Any]:
    """A report of the benchmark.

    Raises:
        ValueError: the file is none.
    """
    try:
        report = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(report, dict) or report.get("benchmark") != NAME:
        raise ValueError(f"{path} is no report of `{NAME}`")
    return report


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Writes a PNG: for every row, how many times our time the other forms take."""
    about = report["machine"]
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}, " if about["device"] == "cpu" else ""
    where = about["cpu"] if about["device"] == "cpu" else about["device"]
    rows = []
    for row in report["rows"]:
        if "ours" not in row["forms"]:
            continue
        ours = row["forms"]["ours"]["ms"]
        others = {name: form["ms"] / ours for name, form in row["forms"].items() if name != "ours"}
        kind = row["dtype"] if about["device"] != "cpu" else ""
        label = ", ".join(part for part in (row["size"], kind) if part)
        rows.append(RatioRow(row["case"], label, row["pass"], ours, row["forms"]["ours"]["share"], others))
    hollow = {name for row in report["rows"] for name, form in row["forms"].items() if not form["same"]}
    draw_ratios(
        rows,
        path,
        title="Time of other forms over ours",
        note="hollow: answers another question; of copying: bytes that have to move once, over our time, as a share of "
        "what copying reaches\n"
        f"{where}, {threads}torch {about['torch']}, {about['clock']}, commit {about['commit']}",
        hollow=hollow,
    )

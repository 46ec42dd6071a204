"""What `visionattn benchmark kernels` prints."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_benchmark(report: Mapping[str, Any]) -> None:
    """For every case a table: ours, and how many times its time and memory each other form takes."""
    from rich.console import Console

    if sys.stdout.isatty():
        _print(report, Console(highlight=False))
        return
    console = Console(width=160, highlight=False)  # a pipe or a file has no width to fit into
    with console.capture() as captured:
        _print(report, console)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print(report: Mapping[str, Any], console: Console) -> None:
    headings = [(row["case"], row["size"], row["batch"], row["dtype"]) for row in report["rows"]]
    for heading in dict.fromkeys(headings):
        rows = [row for row, of in zip(report["rows"], headings, strict=True) if of == heading]
        console.print(_table("{}: {}, batch {}, {}".format(*heading), rows))
    about = report["machine"]
    threads = f", {about['threads']} thread{'' if about['threads'] == 1 else 's'}"
    where = about["cpu"] + threads if about["device"] == "cpu" else about["device"]
    console.print(
        f"{where}, torch {about['torch']}, {about['clock']}, commit {about['commit']}; copies at "
        f"{report['copied_bytes_per_second'] / 1e9:,.1f} GB/s",
        style="dim",
        soft_wrap=True,
    )
    console.print(
        "Medians. x: how many times ours the form takes, above 1 ours is better; in brackets a form that answers "
        "another question. of copying: the bytes that have to cross the memory once over our time, as a share of what "
        "copying reaches. MB: the most that a call holds beside inputs and weights.",
        style="dim",
        soft_wrap=True,
    )
    for case, reason in report["left_out"].items():
        console.print(f"left out: {case}: {reason}", style="dim", soft_wrap=True)
    for note in dict.fromkeys(
        f"left out: {row['case']}, {row['size']}, {row['pass']}, {name}: {reason}"
        for row in report["rows"]
        for name, reason in row["left_out"].items()
    ):
        console.print(note, style="dim", soft_wrap=True)
    for note in dict.fromkeys(line for row in report["rows"] for line in row["why_plain"]):
        console.print(note, style="dim", soft_wrap=True)


def _table(title: str, rows: list[Mapping[str, Any]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("pass", no_wrap=True)
    names = [name for name in dict.fromkeys(name for row in rows for name in row["forms"]) if name != "ours"]
    for heading in ("ours, ms", "of copying", *names, "ours, MB", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        ours = row["forms"].get("ours")
        if ours is None:  # it failed; the notes say why
            continue
        table.add_row(
            row["pass"],
            _number(ours["ms"]),
            f"{ours['share']:.0%}" if ours["share"] >= 0.01 else f"{ours['share']:.1%}",
            *(_ratio(row["forms"].get(name), ours, "ms") for name in names),
            _number(ours["peak_bytes"] / 1e6),
            *(_ratio(row["forms"].get(name), ours, "peak_bytes") for name in names),
        )
    return table


def _ratio(form: Mapping[str, Any] | None, ours: Mapping[str, Any], what: str) -> str:
    if form is None or not ours[what]:
        return "-"
    times = form[what] / ours[what]
    text = f"{times:,.0f}x" if times >= 10 else f"{times:.2f}x"
    return text if form["same"] else f"({text})"


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

"""What the commands that measure mechanisms print."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PATTERNS = {"self": "self-attention", "causal-self": "causal self-attention", "cross": "attention to another map"}
_UNREACHED = float("inf")


def print_bench(report: Mapping[str, Any]) -> None:
    """For every device and pattern a table of milliseconds over the size of the map, the fastest first."""
    _print(lambda console: _bench(report, console))


def print_lengths(report: Mapping[str, Any]) -> None:
    """A table of the tokens from which mechanisms beat the opponent, those that do it first at the top."""
    _print(lambda console: _lengths(report, console))


def _print(write: Any) -> None:
    from rich.console import Console

    if sys.stdout.isatty():
        write(Console(highlight=False))
        return
    console = Console(width=200, highlight=False)  # a pipe or a file has no width to fit into
    with console.capture() as captured:
        write(console)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _bench(report: Mapping[str, Any], console: Console) -> None:
    for device, about in report["machines"].items():
        for pattern in report["settings"]["patterns"]:
            rows = [r for r in report["rows"] if (r["device"], r["pattern"]) == (device, pattern)]
            if rows:
                console.print(_costs(rows, _PATTERNS[pattern], report["settings"]["grids"]))
        console.print(_machine(about, report["settings"]), style="dim", soft_wrap=True)
    console.print(
        "ms: forward / forward and backward, medians. MB: the most that forward and backward hold beside the weights. "
        "M MACs: millions of multiply-accumulates of a forward in the published form.",
        style="dim",
        soft_wrap=True,
    )
    left_out = sum(row["left_out"] is not None for row in report["rows"])
    if left_out:
        console.print(f"-: left out, {left_out} in all; bench.json says why", style="dim", soft_wrap=True)


def _costs(rows: list[Mapping[str, Any]], title: str, grids: list[list[int]]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("mechanism", no_wrap=True)
    for grid in grids:
        table.add_column(f"{'x'.join(map(str, grid))}, ms", justify="right", no_wrap=True)
    for heading in ("MB", "M MACs"):
        table.add_column(heading, justify="right", no_wrap=True)
    cells = {(row["mechanism"], tuple(row["grid"]), row["pass"]): row for row in rows}
    last = tuple(grids[-1])

    def ms(name: str, grid: tuple[int, ...], way: str) -> float:
        found = cells.get((name, grid, way))
        return _UNREACHED if found is None or found["ms"] is None else found["ms"]

    names = dict.fromkeys(row["mechanism"] for row in rows)
    by_time = sorted(names, key=lambda name: [ms(name, tuple(grid), "training") for grid in reversed(grids)])
    for name in by_time:
        training, forward = cells[name, last, "training"], cells[name, last, "forward"]
        both = [" / ".join(_number(ms(name, tuple(grid), way)) for way in ("forward", "training")) for grid in grids]
        held = "-" if training["peak_bytes"] is None else _number(training["peak_bytes"] / 1e6)
        macs = "not counted" if forward["forward_macs"] is None else _number(forward["forward_macs"] / 1e6)
        table.add_row(name, *both, held, macs)
    return table


def _lengths(report: Mapping[str, Any], console: Console) -> None:
    from rich import box
    from rich.table import Table

    from visionattn.analysis.bench.length import in_words

    settings, mechanisms = report["settings"], report["mechanisms"]
    ways = [way for way in ("forward", "training") if any(way in about for about in mechanisms.values())]
    table = Table(
        box=box.SIMPLE_HEAD, title=f"tokens from which {settings['opponent']} is beaten", title_justify="left"
    )
    table.add_column("mechanism", no_wrap=True)
    for way in ways:
        for what in ("time", "memory"):
            table.add_column(f"{what}, {'forward' if way == 'forward' else 'forward and backward'}")

    def order(name: str) -> tuple[float, ...]:
        found = [mechanisms[name].get(way) for way in ways]
        return tuple(_UNREACHED if one is None else one["time"]["high"] or _UNREACHED for one in found)

    for name in sorted(mechanisms, key=order):
        about = mechanisms[name]
        if about["refused"]:
            table.add_row(name, "refused: " + "; ".join(about["refused"]), style="red")
            continue
        cells = []
        for way in ways:
            for what in ("time", "memory"):
                cells.append("not measured" if about.get(way) is None else in_words(about[way][what]))
        table.add_row(name, *cells)
    console.print(table)
    console.print(_machine(report["machine"], settings), style="dim", soft_wrap=True)
    console.print(
        f"An interval holds what {settings['searches']} searches in time found, on square maps of "
        f"{settings['smallest']}x{settings['smallest']} to {settings['largest']}x{settings['largest']}.",
        style="dim",
        soft_wrap=True,
    )


def _machine(about: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}, " if about["device"] == "cpu" else ""
    where = about["cpu"] if about["device"] == "cpu" else about["device"]
    return (
        f"{where}, {threads}torch {about['torch']}, {about['clock']}, commit {about['commit']}; batch "
        f"{settings['batch']}, {settings['dim']} channels, {settings['heads']} heads, {settings['dtype']}"
    )


def _number(value: float) -> str:
    """Three digits; a dash where there is none."""
    if value == _UNREACHED:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

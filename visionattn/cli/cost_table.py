"""What `visionattn cost` prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from visionattn.analysis.cost import Cost, Measured, Row

_WIDE = 100  # columns of a terminal that has room for the classes


def print_cost(name: str, cost: Cost) -> None:
    """The whole model in a few lines, then a table of its stages and blocks."""
    from rich.console import Console

    if sys.stdout.isatty():
        _print(name, cost, Console(highlight=False))
        return
    console = Console(width=200, highlight=False)  # a pipe or a file has no width to fit into
    with console.capture() as captured:
        _print(name, cost, console)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print(name: str, cost: Cost, console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for heading, text in (("model", name), ("input", " x ".join(map(str, cost.shape))), *_totals(cost)):
        grid.add_row(heading, escape(text))
    console.print(grid)
    console.print(_parts(cost, wide=console.width >= _WIDE))
    console.print(
        "MACs: multiply-accumulates of matrix products, convolutions and attention; FLOPs are twice as many. "
        "kept: for the backward.",
        style="dim",
    )
    if cost.uncounted:
        listed = ", ".join(f"{operation} ({calls}x)" for operation, calls in cost.uncounted.items())
        console.print(f"[bold yellow]not counted[/]: {escape(listed)}")


def _totals(cost: Cost) -> list[tuple[str, str]]:
    frozen = cost.parameters - cost.trained_parameters
    about = cost.machine
    macs = short(cost.macs)
    if cost.attention_macs:
        macs += f", attention {short(cost.attention_macs)} ({cost.attention_macs / cost.macs:.1%})"
    if cost.macs_here != cost.macs:
        macs += f"; {short(cost.macs_here)} as run here, by exact shortcuts"
    lines = [
        ("parameters", f"{cost.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else "")),
        ("weights", f"{megabytes(cost.weight_bytes)} MB"),
        ("MACs", macs),
        ("forward", _pass(cost.inference)),
    ]
    if cost.training is not None:
        kept = f", {megabytes(cost.training.saved_bytes or 0)} MB kept for the backward"
        lines.append(("training", f"forward + backward {_pass(cost.training)}{kept}"))
    if cost.process_peak_bytes is not None:
        lines.append(("process", f"at most {megabytes(cost.process_peak_bytes)} MB resident, libraries included"))
    threads = f"{about['threads']} thread{'' if about['threads'] == 1 else 's'}, " if about["device"] == "cpu" else ""
    where = about["cpu"] if about["device"] == "cpu" else about["device"]
    return [*lines, ("measured on", f"{where}, {threads}torch {about['torch']}")]


def _pass(measured: Measured) -> str:
    spread = f"median of {measured.repeats}, {measured.fastest_ms:.4g} to {measured.slowest_ms:.4g}"
    return f"{measured.ms:.4g} ms ({spread}), peak {megabytes(measured.peak_bytes)} MB"


def _parts(cost: Cost, *, wide: bool) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("part", overflow="fold")
    if wide:
        table.add_column("class", overflow="fold", style="dim")
    attention, training = bool(cost.attention_macs), cost.training is not None
    headings = ["params", "MACs", "attention" if attention else "", "kept MB" if training else "", "ms"]
    for heading in filter(None, headings):
        table.add_column(heading, justify="right", no_wrap=True)
    # What never ran (an auxiliary head) is one line; what has neither weights nor multiplications is none.
    rows = [row for row in cost.rows if row.parameters or row.macs or not row.depth]
    shown = [row for row in rows if row.ms or row.depth < 2]
    for row in shown:
        cells = [short(row.parameters), short(row.macs)]
        if attention:
            cells.append(short(row.attention_macs))
        if training:
            cells.append(megabytes(row.saved_bytes or 0))
        label = f"{'  ' * row.depth}{escape(_label(row, cost))}"
        style = "bold" if row.kind in ("model", "stage") else None
        cells.append(f"{row.ms:.2f}" if row.ms else "not run")
        table.add_row(label, *([row.type] if wide else []), *cells, style=style)
    return table


def _label(row: Row, cost: Cost) -> str:
    """The row's path below the row that it belongs to."""
    if not row.name:
        return "model"
    above = [other.name for other in cost.rows if other.name and row.name.startswith(f"{other.name}.")]
    return row.name[len(max(above, key=len)) + 1 :] if above else row.name


def short(number: float) -> str:
    """Four digits with a letter for the power of a thousand: 25.56 M; nothing for 0."""
    for power, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.4g} {letter}"
    return f"{number:g}" if number else ""


def megabytes(number: int) -> str:
    """Millions of bytes, three digits; nothing for 0."""
    value = number / 1e6
    if not number:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

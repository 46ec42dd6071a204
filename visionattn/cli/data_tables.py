"""What `visionattn data check` prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from visionattn.data.findings import Finding, Histogram
    from visionattn.engine.data_check import ConfigReport

T = TypeVar("T")
_CASES = 5
_MOST_CLASSES, _ENDS = 200, 10
"""Classes of a table; of more, so many of the most and of the least frequent."""


def track(split: str) -> Any:
    """A progress bar on the terminal's standard error, named after the split; nothing in a pipe."""

    def shown(items: Iterable[T], total: int) -> Iterator[T]:
        from rich.console import Console
        from rich.progress import track as progress

        console = Console(stderr=True)
        return iter(
            progress(items, split, total=total, console=console, transient=True, disable=not sys.stderr.isatty())
        )

    return shown


def print_report(report: ConfigReport) -> None:
    """The splits, the labels of each, and what was found, errors first."""
    from rich.console import Console

    if sys.stdout.isatty():
        _print(report, Console(highlight=False))
        return
    console = Console(width=200, highlight=False)  # a pipe or a file has no width to fit into
    with console.capture() as captured:
        _print(report, console)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print(report: ConfigReport, console: Console) -> None:
    console.print(_splits(report))
    histograms = {
        split: found.histogram for split, reports in report.splits.items() for found in reports if found.histogram
    }
    if histograms:
        console.print(_labels(histograms))
    measured = [(split, found.dataset, found.measured) for split, reports in report.splits.items() for found in reports]
    if any(values for *_, values in measured):
        console.print(_measured(measured))
    for split, finding in report.findings:
        _print_finding(split, finding, console)
    counts = [_counted(report.count(level), level) for level in ("error", "warning")]
    console.print(f"[bold]{' and '.join(counts)}[/]" if report.count("error") else " and ".join(counts))


def _splits(report: ConfigReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for heading, justify in (("split", "left"), ("data set", "left"), ("samples", "right"), ("looked at", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for split, reports in report.splits.items():
        for found in reports:
            table.add_row(split, found.dataset, f"{found.samples:,}", f"{found.checked:,}")
        if not reports:
            table.add_row(split, "could not be opened", "-", "-")
    return table


def _measured(measured: Sequence[tuple[str, str, Mapping[str, str]]]) -> Table:
    """A row for each thing that was measured, a column for each data set that has any."""
    from rich import box
    from rich.table import Table

    table = Table("measured", box=box.SIMPLE_HEAD)
    shown = [(split, dataset, values) for split, dataset, values in measured if values]
    for split, dataset, _ in shown:
        several = sum(other == split for other, *_ in shown) > 1
        table.add_column(f"{split}, {dataset}" if several else split, overflow="fold")
    for name in dict.fromkeys(name for *_, values in shown for name in values):
        table.add_row(name, *(values.get(name, "") for *_, values in shown))
    return table


def _labels(histograms: dict[str, Histogram]) -> Table:
    """A row for each class, in percent of what is of a class, two columns a split: the share and how much that is."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    units = {histogram.unit for histogram in histograms.values()}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("class", overflow="fold")
    for split in histograms:
        table.add_column(f"{split} %", justify="right", no_wrap=True)
        table.add_column("/".join(sorted(units)), justify="right", no_wrap=True, style="dim")
    names = list(dict.fromkeys(name for histogram in histograms.values() for name in histogram.names))
    shown = _most_and_least(histograms, names) if len(names) > _MOST_CLASSES else names
    for name in shown:
        table.add_row(escape(name), *(cell for histogram in histograms.values() for cell in _cells(histogram, name)))
    if len(shown) < len(names):
        table.caption = f"of {len(names):,} classes the most and the least frequent; --json FILE has all"
    if any(histogram.ignored for histogram in histograms.values()):
        table.add_section()
        ignored = ((h.ignored, sum(h.counts) + h.ignored) for h in histograms.values())
        table.add_row(
            "(ignored, of all)",
            *(cell for count, total in ignored for cell in (_percent(count, total), f"{count:,}")),
            style="dim",
        )
    return table


def _most_and_least(histograms: dict[str, Histogram], names: list[str]) -> list[str]:
    """Of the classes of the first split that occur, those at either end, by falling number."""
    first = next(iter(histograms.values()))
    counts = dict(zip(first.names, first.counts, strict=True))
    there = sorted((name for name in names if counts.get(name)), key=lambda name: -counts[name])
    return list(dict.fromkeys([*there[:_ENDS], *there[-_ENDS:]]))


def _cells(histogram: Histogram, name: str) -> tuple[str, str]:
    if name not in histogram.names:
        return "", ""
    count = histogram.counts[histogram.names.index(name)]
    return (_percent(count, sum(histogram.counts)), f"{count:,}") if count else ("[bold]never[/]", "0")


def _percent(count: int, total: int) -> str:
    share = 100 * count / max(total, 1)
    return f"{share:.2f}" if share >= 0.01 or not count else "< 0.01"


def _print_finding(split: str, finding: Finding, console: Console) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    colour = "red" if finding.level == "error" else "yellow"
    console.print(f"[bold {colour}]{finding.level}[/]  {escape(f'{split}: {finding.message}')}")
    shown = list(finding.cases[:_CASES])
    if len(finding.cases) > _CASES:
        shown.append(f"... and {len(finding.cases) - _CASES:,} more (--json FILE has all)")
    for line in shown:
        console.print(Padding(escape(line), (0, 0, 0, 4), expand=False))
    if finding.advice:
        console.print(Padding(escape(f"-> {finding.advice}"), (0, 0, 0, 4), expand=False), style="dim")
    console.print()


def _counted(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"

"""What a look through a data set found: the form in which every task reports it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Track = Callable[[Iterable[T], int], Iterable[T]]
"""Hands an iterable of known length through, and may show how far it is."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and where.

    Attributes:
        level: "error" where training or its figures would be wrong, "warning" where they may be meant.
        kind: a word to sort by: "missing", "undecodable", "size", "label", "class", "num_classes", "duplicate",
            "dataset"; of stereo pairs also "truth", "count", "range" and "swapped".
        message: one line.
        cases: a line for each file or pair that it is about, in the data set's order.
        advice: the way out.
    """

    level: Literal["error", "warning"]
    kind: str
    message: str
    cases: tuple[str, ...] = ()
    advice: str = ""

    def __str__(self) -> str:
        """One line with the first case."""
        first = f": {self.cases[0]}" if self.cases else ""
        return f"{self.message}{first}" + (f"; {self.advice}" if self.advice else "")


@dataclass(frozen=True)
class Histogram:
    """How often each class occurs.

    Attributes:
        names: of the classes.
        counts: of each class.
        ignored: how many are of no class.
        unit: what is counted, "pixels" or "boxes".
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    ignored: int = 0
    unit: str = "pixels"


@dataclass
class DataReport:
    """What was looked at, and all that was found.

    Attributes:
        dataset: its class's name.
        samples: how many it has.
        checked: how many were looked at.
        summary: one line, for a log.
        findings: in order of discovery.
        histogram: of those looked at; None where the task has no classes.
        inputs: the files that a network sees, for a search for duplicates.
        measured: what was measured of those looked at, by name, in words.
    """

    dataset: str
    samples: int
    checked: int
    summary: str
    findings: list[Finding] = field(default_factory=list)
    histogram: Histogram | None = None
    inputs: list[str] = field(default_factory=list)
    measured: dict[str, str] = field(default_factory=dict)


def untracked(items: Iterable[T], total: int) -> Iterator[T]:
    """The items themselves: a `Track` that shows nothing."""
    yield from items


@singledispatch
def check_files(
    dataset: Any, *, decode: bool = False, limit: int | None = None, track: Track = untracked
) -> DataReport:
    """All that is wrong with a data set's files; each task registers this for its data sets.

    Of another data set its own `check()` is asked, which raises ValueError or OSError where something is wrong.

    Args:
        dataset: may be built with `lazy_init=True`.
        decode: decodes the inputs too, not their headers alone.
        limit: above this number of samples, as many evenly spaced ones are looked at; None looks at all.
        track: is handed the samples as they are looked at.
    """
    name, samples = type(dataset).__name__, len(dataset)
    report = DataReport(name, samples, 0, f"{name} has no check of its files")
    if not hasattr(dataset, "check"):
        advice = "visionattn checks its own data sets and mmsegmentation's; give yours a method check()"
        report.findings.append(Finding("warning", "dataset", f"the files of {name} were not checked", advice=advice))
        return report
    try:
        report.summary = str(dataset.check())
        report.checked = samples
    except (ValueError, OSError) as error:
        report.findings.append(Finding("error", "dataset", str(error)))
    return report

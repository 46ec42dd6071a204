"""Writes the tables and charts of docs/attention_bench.md from what the two commands measured.

    python tools/attention_bench_page.py [--bench bench.json] [--length length.json]

Files that are named are kept as docs/attention_bench.json and docs/efficiency_length.json; the page is written from
these two, and the chart of accuracy from docs/longrange.json where there is one. Measured by

    visionattn attention bench --out DIR
    visionattn attention efficiency-length --all --json FILE
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
PAGE, BENCH, LENGTH = DOCS / "attention_bench.md", DOCS / "attention_bench.json", DOCS / "efficiency_length.json"
CHARTS = DOCS / "attention_bench"
OPPONENT = "SoftmaxAttention"
TITLES = {"self": "Self-attention", "causal-self": "Causal self-attention", "cross": "Attention to another map"}
FEWEST_CELLS = 20
"""Trained cells from which on a chart of accuracy against cost has enough points to be one."""
SHOWN = {
    "self": ("training_time", "forward_time", "training_memory", "multiplications"),
    "causal-self": ("training_time", "training_memory"),
    "cross": ("training_time",),
}
ALTERNATIVES = {
    "training_time": "milliseconds of forward and backward over the size of the map",
    "forward_time": "milliseconds of a forward over the size of the map",
    "training_memory": "peak megabytes of forward and backward over the size of the map",
    "multiplications": "multiply-accumulates of a forward over the size of the map",
}


def main() -> None:
    from visionattn.analysis.bench.charts import draw_charts, read_accuracy, read_report

    args = parse_args()
    for given, kept in ((args.bench, BENCH), (args.length, LENGTH)):
        if given is not None:
            kept.write_text(json.dumps(json.loads(given.read_text()), separators=(",", ":")) + "\n")
    if BENCH.is_file():
        report = read_report(BENCH)
        trained = DOCS / "longrange.json"
        cells = json.loads(trained.read_text())["cells"] if trained.is_file() else {}
        accuracy = read_accuracy(trained) if len(cells) >= FEWEST_CELLS else None
        for old in CHARTS.glob("*.png"):
            old.unlink()
        drawn = [path.stem for path in draw_charts(report, CHARTS, accuracy)]
        for path in CHARTS.glob("*.png"):
            if path.stem not in set(shown(drawn)):
                path.unlink()
        replace("bench", "\n".join(bench_page(report, drawn)))
    if LENGTH.is_file():
        replace("length", "\n".join(length_page(json.loads(LENGTH.read_text()))))


def replace(name: str, text: str) -> None:
    """Puts the text between the two marks of this name."""
    begin, end = f"<!-- {name}: tools/attention_bench_page.py -->", f"<!-- end of {name} -->"
    before, found, rest = PAGE.read_text().partition(begin)
    assert found, f"{PAGE} has no {begin}"
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def shown(drawn: list[str]) -> list[str]:
    """The charts that are on the page."""
    wanted = [f"{pattern.replace('-', '_')}_{chart}" for pattern, charts in SHOWN.items() for chart in charts]
    return [name for name in drawn if name in wanted or name.startswith("accuracy")]


def bench_page(report: Mapping[str, Any], drawn: list[str]) -> Iterator[str]:
    """The page's part on the bench: what was measured where, and for each pattern a finding, charts and a table."""
    (machine,) = report["machines"].values()
    settings = report["settings"]
    grids = ", ".join("x".join(map(str, grid)) for grid in settings["grids"])
    yield (
        f"{len(report['mechanisms'])} mechanisms on maps of {grids}; batch {settings['batch']}, {settings['dim']} "
        f"channels, {settings['heads']} heads, {settings['dtype']}. {where(machine)}. A case that was "
        f"foreseen to take more than {settings['run_s']:g} s or {settings['run_bytes'] / 1e6:,.0f} MB a run "
        "was left out."
    )
    yield ""
    for pattern in settings["patterns"]:
        rows = [row for row in report["rows"] if row["pattern"] == pattern]
        if not rows:
            continue
        yield f"### {TITLES[pattern]}"
        yield ""
        yield from findings(rows, settings["grids"])
        for chart in shown(drawn):
            kind = chart.removeprefix(f"{pattern.replace('-', '_')}_")
            if kind in SHOWN[pattern]:
                yield f"![{TITLES[pattern]}: {ALTERNATIVES[kind]}](attention_bench/{chart}.png)"
                yield ""
        yield from table(rows, settings["grids"])
        yield ""
    yield from causal_cross(report)
    accuracies = [chart for chart in drawn if chart.startswith("accuracy_")]
    if accuracies:
        yield "### Accuracy against cost"
        yield ""
        yield (
            "Accuracies are those of [the long-range tasks](longrange.md), mean, lowest and highest of the seeds: "
            "networks of 32 channels on 24x24 positions, not of the layers that are timed here. "
            "What is missing to 100 % has a logarithmic axis."
        )
        yield ""
        for chart in accuracies:
            task = chart.removeprefix("accuracy_")
            yield f"![Accuracy on {task} against the time of forward and backward](attention_bench/{chart}.png)"
            yield ""
    refused = {name: about["refused"] for name, about in report["mechanisms"].items() if about["refused"]}
    for name, broken in refused.items():
        yield f"`{name}` was refused: {'; '.join(broken)}."
        yield ""


def findings(rows: list[dict[str, Any]], grids: list[list[int]]) -> Iterator[str]:
    """What the figures say, in a sentence for each map."""
    for grid in grids:
        own = [row for row in rows if row["grid"] == grid and row["pass"] == "training"]
        times = {row["mechanism"]: row["ms"] for row in own if row["ms"] is not None}
        held = {row["mechanism"]: row["peak_bytes"] for row in own if row["peak_bytes"] is not None}
        if not times:
            continue
        first = sorted(times, key=lambda name: times[name])[:3]
        best = ", ".join(f"`{name}` ({number(times[name])} ms)" for name in first)
        text = f"- {'x'.join(map(str, grid))}, forward and backward: shortest {best}"
        if OPPONENT in times:
            others = [name for name in times if name != OPPONENT]
            faster = sum(times[name] < times[OPPONENT] for name in others)
            lighter = sum(held[name] < held[OPPONENT] for name in others)
            text += (
                f"; of {len(others)} others {faster} take less time than `{OPPONENT}` ({number(times[OPPONENT])} ms) "
                f"and {lighter} hold less ({number(held[OPPONENT] / 1e6)} MB)"
            )
        elif any(row["mechanism"] == OPPONENT for row in own):
            text += f"; `{OPPONENT}` was left out"
        yield f"{text}."
    yield ""


def table(rows: list[dict[str, Any]], grids: list[list[int]]) -> Iterator[str]:
    """Milliseconds forward / forward and backward over the maps, and memory and multiplications at the largest."""
    cells = {(row["mechanism"], tuple(row["grid"]), row["pass"]): row for row in rows}
    heads = ["x".join(map(str, grid)) for grid in grids]
    last = tuple(grids[-1])
    yield f"| mechanism | {' | '.join(f'{head}, ms' for head in heads)} | {heads[-1]}, MB | {heads[-1]}, M MACs |"
    yield f"|---|{'--:|' * (len(grids) + 2)}"

    def order(name: str) -> list[float]:
        times = [cells[name, tuple(grid), "training"]["ms"] for grid in reversed(grids)]
        return [float("inf") if ms is None else ms for ms in times]

    for name in sorted({row["mechanism"] for row in rows}, key=order):
        both = [
            " / ".join(number(cells[name, tuple(grid), way]["ms"]) for way in ("forward", "training")) for grid in grids
        ]
        peak, macs = cells[name, last, "training"]["peak_bytes"], cells[name, last, "forward"]["forward_macs"]
        figures = [number(None if value is None else value / 1e6) for value in (peak, macs)]
        yield f"| `{name}` | {' | '.join([*both, *figures])} |"
    yield ""
    yield "ms: forward / forward and backward. MB: what forward and backward hold at their peak. –: left out."


def causal_cross(report: Mapping[str, Any]) -> Iterator[str]:
    """Those whose look at another map is causal as it is."""
    able = [f"`{name}`" for name, about in report["mechanisms"].items() if about["causal_cross"]]
    looks = sorted({row["mechanism"] for row in report["rows"] if row["pattern"] == "cross"})
    if looks:
        yield (
            f"Of the {len(looks)} mechanisms that look at another map, {len(able)} answer each position from its own "
            f"query and that map alone ({', '.join(able)}): for them the causal pattern of attention to another map is "
            "the same computation, at the same cost."
        )
        yield ""


def length_page(report: Mapping[str, Any]) -> Iterator[str]:
    """The page's part on efficiency length."""
    from visionattn.analysis.bench.length import in_words

    settings, mechanisms = report["settings"], report["mechanisms"]
    ways = [way for way in ("forward", "training") if any(way in about for about in mechanisms.values())]
    heads = [f"{what}, {'forward' if way == 'forward' else 'training'}" for way in ways for what in ("time", "memory")]
    yield (
        f"Square maps of {settings['smallest']}x{settings['smallest']} to {settings['largest']}x{settings['largest']}, "
        f"batch {settings['batch']}, {settings['dim']} channels, {settings['heads']} heads, {settings['dtype']}; "
        f"{settings['searches']} searches in time, {settings['rounds']} rounds a comparison. "
        f"{where(report['machine'])}."
    )
    yield ""
    yield f"| mechanism | {' | '.join(heads)} |"
    yield f"|---|{'---|' * len(heads)}"

    def order(name: str) -> list[float]:
        found = [mechanisms[name].get(way) for way in ways]
        return [float("inf") if one is None else one["time"]["high"] or float("inf") for one in found]

    for name in sorted(mechanisms, key=order):
        cells = []
        for way in ways:
            found = mechanisms[name].get(way)
            cells += ["not measured"] * 2 if found is None else [in_words(found[what]) for what in ("time", "memory")]
        yield f"| `{name}` | {' | '.join(cells)} |"
    for way in ways:
        verdicts = [about[way]["time"]["verdict"] for about in mechanisms.values() if way in about]
        beaten = sum(verdict in ("from", "always") for verdict in verdicts)
        yield ""
        yield (
            f"In {'a forward' if way == 'forward' else 'forward and backward'} {beaten} of {len(verdicts)} beat "
            f"softmax attention in time within these maps, {verdicts.count('never')} never do."
        )


def where(machine: Mapping[str, Any]) -> str:
    """What a figure is reported with."""
    on_cpu = machine["device"] == "cpu"
    name = machine["cpu"] if on_cpu else machine["device"]
    threads = f", {machine['threads']} thread{'' if machine['threads'] == 1 else 's'}" if on_cpu else ""
    return f"{name}{threads}, torch {machine['torch']}, {machine['clock']}, commit {machine['commit']}"


def number(value: float | None) -> str:
    """Three digits; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, metavar="FILE", help="a bench.json to take over")
    parser.add_argument("--length", type=Path, metavar="FILE", help="a JSON of efficiency-length to take over")
    return parser.parse_args()


if __name__ == "__main__":
    main()

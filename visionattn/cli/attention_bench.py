"""`visionattn attention bench`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionattn.cli.attention_options import (
    add_measuring_options,
    check_numbers,
    grid,
    limits_from,
    mechanisms_from,
    sizes_from,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

_PATTERNS = ("self", "causal-self", "cross")
_GRIDS = ((16, 16), (32, 32), (64, 64))


def add_action(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = actions.add_parser(
        "bench",
        help="time, memory and multiplications of mechanisms over the size of the map",
        description="Measures mechanisms beside each other, interleaved in one process: forward, and forward and "
        "backward, with peak memory and exact multiplications. Writes bench.json and charts into a folder. A mechanism "
        "that breaks the contract of mechanisms is refused.",
    )
    parser.add_argument("mechanisms", nargs="*", metavar="MECHANISM", help="registry names; all if none is given")
    parser.add_argument(
        "--patterns",
        nargs="+",
        choices=_PATTERNS,
        default=_PATTERNS,
        help="a map looks at itself, at itself up to each token, at another map (all three)",
    )
    parser.add_argument(
        "--grids", nargs="+", type=grid, default=_GRIDS, metavar="HxW", help="sizes of the map (16x16 32x32 64x64)"
    )
    parser.add_argument(
        "--device", nargs="+", default=["cpu"], metavar="NAME", help="cpu, cuda, cuda:1 ...; one after the other (cpu)"
    )
    add_measuring_options(parser)
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="interleaved rounds, the median counts (7)")
    parser.add_argument(
        "--budget",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds after which a mechanism sits out the remaining rounds of a size, after three at least (2)",
    )
    parser.add_argument("--minutes", type=float, metavar="M", help="of the whole; what has no time left is left out")
    parser.add_argument("--out", default="attention_bench", metavar="DIR", help="where to write (attention_bench)")
    parser.add_argument(
        "--accuracy", metavar="FILE", help="JSON with the accuracy of mechanisms, for a chart of it against cost"
    )
    parser.add_argument("--redraw", metavar="FILE", help="measure nothing; draw the charts of this bench.json again")
    parser.set_defaults(action_run=run)


def run(args: Namespace) -> int:
    from visionattn.analysis.bench.charts import draw_charts, read_accuracy, read_report
    from visionattn.cli.attention_table import print_bench

    out = Path(args.out)
    accuracy = None if args.accuracy is None else read_accuracy(Path(args.accuracy))
    report = _measured(args, out) if args.redraw is None else read_report(Path(args.redraw))
    if any(row["ms"] is not None for row in report["rows"]):
        drawn = draw_charts(report, out, accuracy)
        print_bench(report)
        print(f"charts  {out}: {', '.join(path.name for path in drawn)}")
    if args.redraw is None:
        print(f"figures {out / 'bench.json'}")
    refused = {name: about["refused"] for name, about in report["mechanisms"].items() if about["refused"]}
    for name, broken in refused.items():
        print(f"{name} is refused and was not timed: {'; '.join(broken)}", file=sys.stderr)
    return 1 if refused else 0


def _measured(args: Namespace, out: Path) -> dict[str, Any]:
    import torch

    from visionattn.analysis.bench.run import Plan, bench
    from visionattn.cli.models import device_from

    check_numbers(args, "repeats", "budget", "minutes")
    names = mechanisms_from(args.mechanisms)
    devices = [str(device_from(name)) for name in args.device]
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    plan = Plan(
        names,
        grids=sorted(set(args.grids), key=lambda grid: (len(grid), torch.Size(grid).numel())),
        patterns=[pattern for pattern in _PATTERNS if pattern in args.patterns],
        devices=devices,
        sizes=sizes_from(args, names),
        repeats=args.repeats,
        budget_s=args.budget,
        limits=limits_from(args),
    )
    out.mkdir(parents=True, exist_ok=True)

    def save(report: dict[str, Any]) -> None:
        (out / "bench.json").write_text(json.dumps(report, indent=1) + "\n")

    report = bench(plan, say=lambda line: print(line, flush=True), save=save)
    save(report)
    return report

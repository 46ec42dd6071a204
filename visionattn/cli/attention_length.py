"""`visionattn attention efficiency-length`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionattn.cli.attention_options import (
    add_measuring_options,
    check_numbers,
    limits_from,
    mechanisms_from,
    sizes_from,
)

if TYPE_CHECKING:
    from argparse import ArgumentParser, _SubParsersAction

_PASSES = ("forward", "training")


def add_action(actions: _SubParsersAction[ArgumentParser]) -> None:
    parser = actions.add_parser(
        "efficiency-length",
        help="the number of tokens from which a mechanism beats softmax attention here",
        description="Searches, over square maps, the number of tokens from which on a mechanism takes less time, and "
        "holds less memory, than softmax attention through PyTorch's fused kernel with the same width and heads. Time "
        "is searched several times: the answer is an interval.",
    )
    parser.add_argument("mechanisms", nargs="*", metavar="MECHANISM", help="registry names")
    parser.add_argument("--all", action="store_true", help="every mechanism")
    parser.add_argument(
        "--passes", nargs="+", choices=_PASSES, default=_PASSES, help="forward, or forward and backward (both)"
    )
    parser.add_argument("--smallest", type=int, default=4, metavar="SIDE", help="of the square maps (4)")
    parser.add_argument("--largest", type=int, default=64, metavar="SIDE", help="of the square maps (64)")
    parser.add_argument("--searches", type=int, default=3, metavar="N", help="how often time is searched (3)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="interleaved rounds a comparison (5)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1 ... (cpu)")
    add_measuring_options(parser)
    parser.add_argument("--json", metavar="FILE", help="write every figure to this file")
    parser.set_defaults(action_run=run)


def run(args: Namespace) -> int:
    import torch

    from visionattn.analysis.bench.length import OPPONENT, Search, efficiency_lengths
    from visionattn.cli.attention_table import print_lengths
    from visionattn.cli.models import device_from

    check_numbers(args, "smallest", "largest", "searches", "rounds")
    if bool(args.mechanisms) == args.all:
        raise ValueError("name mechanisms or give --all, one of the two; `visionattn attention list` has the names")
    names = [name for name in mechanisms_from(args.mechanisms) if name != OPPONENT]
    if not names:
        raise ValueError(f"{OPPONENT} is what the others are compared with; name another mechanism")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    search = Search(
        names,
        smallest=args.smallest,
        largest=args.largest,
        passes=[way for way in _PASSES if way in args.passes],
        device=str(device_from(args.device)),
        sizes=sizes_from(args, [OPPONENT, *names]),
        searches=args.searches,
        rounds=args.rounds,
        limits=limits_from(args),
    )

    def save(report: dict[str, Any]) -> None:
        if args.json:
            path = Path(args.json)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=1) + "\n")

    report = efficiency_lengths(search, say=lambda line: print(line, file=sys.stderr, flush=True), save=save)
    save(report)
    print_lengths(report)
    return 1 if any(about["refused"] for about in report["mechanisms"].values()) else 0

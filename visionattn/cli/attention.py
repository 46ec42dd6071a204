"""`visionattn attention`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from visionattn.cli import attention_bench, attention_length, attention_maps


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every mechanism: cost, cross and causal forms, grids it accepts, paper")
    listing.set_defaults(action_run=_list)
    attention_bench.add_action(actions)
    attention_length.add_action(actions)
    attention_maps.add_action(actions)


def run(args: Namespace) -> int:
    code: int = args.action_run(args)
    return code


def _list(args: Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from visionattn.attention.listing import listed_mechanisms

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("mechanism", "cost", "cross", "causal", "grids", "paper"):
        table.add_column(heading, no_wrap=heading != "paper")
    for row in listed_mechanisms():
        grids = " ".join(f"{dims}-D" for dims in row.grids)
        causal = "yes" if row.causal else ""
        table.add_row(row.name, row.cost, row.cross, causal, grids, row.paper)
    # A pipe or a file has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0

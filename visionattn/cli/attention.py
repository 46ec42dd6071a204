"""`visionattn attention`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="every mechanism with its paper, cost, and the grids it accepts")


def run(args: Namespace) -> int:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from visionattn.attention.base import ContextMixer
    from visionattn.attention.build import attention_class, list_attention

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("mechanism", "cost", "cross", "grids", "paper"):
        table.add_column(heading, no_wrap=heading != "paper")
    for name in list_attention():
        mixer = attention_class(name)
        cross = "yes" if issubclass(mixer, ContextMixer) else ""
        grids = " ".join(f"{dims}-D" for dims in mixer.grid_dims)
        table.add_row(name, mixer.claims.cost, cross, grids, mixer.claims.paper)
    # A pipe or a file has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    return 0

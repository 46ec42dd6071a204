"""Memory of RAFT-Stereo's two ways to correlate: kept for all steps, or made anew at each.

    python benchmarks/row_lookups.py [--steps 2] [--size 100x720 ...]

Each measurement is a process of its own: how far its resident memory rose beyond that of the two maps [1, 256, H, W].
"""

from __future__ import annotations

import argparse
import multiprocessing

import torch
from rich.console import Console
from rich.table import Table

from visionattn.analysis.memory import process_peak_bytes
from visionattn.stereo.row_lookup import LeanRowLookup, StoredRowLookup

LOOKUPS = {"stored": StoredRowLookup, "made anew": LeanRowLookup}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", nargs="+", default=["136x240", "100x720"], help="of the maps, HxW")
    args = parser.parse_args()
    table = Table("maps", "", *LOOKUPS, title=f"MiB beyond the maps, {args.steps} steps, PyTorch {torch.__version__}")
    for size in args.size:
        height, width = map(int, size.split("x"))
        for grad in (False, True):
            row = []
            for name in LOOKUPS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    row.append(f"{pool.apply(extra, (name, height, width, args.steps, grad)) / 2**20:,.0f}")
            table.add_row(size, "with gradients" if grad else "eval", *row)
    Console().print(table)


def extra(name: str, height: int, width: int, steps: int, grad: bool) -> int:
    """Bytes beyond the maps in this process."""
    left, right = (torch.randn(1, 256, height, width, requires_grad=grad) for _ in range(2))
    centre = torch.rand(1, height, width) * width
    before = process_peak_bytes()
    with torch.set_grad_enabled(grad):
        lookup = LOOKUPS[name](left, right, 4, 4)
        total = sum(lookup(centre).square().mean() for _ in range(steps))
        if grad:
            total.backward()
    after = process_peak_bytes()
    if before is None or after is None:
        raise SystemExit("this system does not say how much memory a process has had")
    return after - before


if __name__ == "__main__":
    main()

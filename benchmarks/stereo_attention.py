"""What attention costs at each place of PSMNet: efficient attention and the non-local block, time and peak memory.

    python benchmarks/stereo_attention.py [--size 256 512] [--max-disparity 192] [--repeats 5] [--json FILE]

The plug-in alone is run, on a random map of the place's shape. Where the number of tokens squared would take hours, as
in the volume, a part of the queries looks at all of the keys through PyTorch's fused attention, and time is scaled to
all of them; what the N x N map would take if it were stored is said beside.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, median_ms
from rich.console import Console
from rich.table import Table
from torch import Tensor

from visionattn.analysis.memory import peak_extra_bytes
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.ops.non_local import gaussian_attention

MECHANISMS = ("EfficientAttention", "NonLocal")
MANY_TOKENS = 50_000
"""From here on all pairs of tokens are too many: a part of the queries is run."""
PART = 256


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    rows = []
    for place, (channels, grid) in places(*args.size, args.max_disparity).items():
        for training in (False, True):
            torch.manual_seed(0)
            runs: dict[str, Callable[[], object]] = {}
            for name in MECHANISMS:
                if name == "NonLocal" and math.prod(grid) > MANY_TOKENS:
                    runs[name] = part_of_queries(channels // 2, math.prod(grid), training, device)
                else:
                    runs[name] = plugin(name, channels, grid, training, device)
            extra = {name: peak_extra_bytes(run, device) for name, run in runs.items()}
            ms = median_ms(runs, device, repeats=args.repeats, budget_s=args.budget)
            scale = math.prod(grid) / PART if math.prod(grid) > MANY_TOKENS else 1
            rows.append(
                {
                    "place": place,
                    "grid": grid,
                    "pass": "forward + backward" if training else "forward",
                    "ms": {**ms, "NonLocal": scale * ms["NonLocal"]},
                    "peak_extra_bytes": extra if scale == 1 else {**extra, "NonLocal": None},
                    "scaled_from_queries": None if scale == 1 else PART,
                }
            )
    report = {"machine": machine(device), "size": args.size, "max_disparity": args.max_disparity, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def places(height: int, width: int, max_disparity: int) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Channels and grid of each place."""
    quarter = (max_disparity // 4, height // 4, width // 4)
    return {
        "spp": (32, quarter[1:]),
        "cost": (32, quarter),
        "hourglass": (64, tuple(extent // 4 for extent in quarter)),
    }


def plugin(
    name: str, channels: int, grid: tuple[int, ...], training: bool, device: torch.device
) -> Callable[[], object]:
    module = AttentionPlugin(channels, name).to(device)
    torch.nn.init.constant_(module.gamma, 0.5)
    x = torch.randn(1, *grid, channels, device=device).movedim(-1, 1)
    grad = torch.randn_like(x)

    def forward() -> Tensor:
        with torch.no_grad():
            return module(x)

    def forward_backward() -> None:
        module.zero_grad(set_to_none=True)
        leaf = x.detach().requires_grad_()
        module(leaf).backward(grad)

    return forward_backward if training else forward


def part_of_queries(channels: int, tokens: int, training: bool, device: torch.device) -> Callable[[], object]:
    """The attention of the non-local block between `PART` queries and all tokens, without its projections."""
    leaves = [torch.randn(1, n, channels, device=device, requires_grad=training) for n in (PART, tokens, tokens)]

    def run() -> None:
        out = gaussian_attention(*leaves, scale=channels**-0.5)
        if training:
            torch.autograd.grad(out.sum(), leaves)

    return run


def show(report: dict[str, Any]) -> None:
    table = Table(title="attention in PSMNet, {}x{}, {} disparities".format(*report["size"], report["max_disparity"]))
    for column in (
        "place",
        "grid",
        "tokens",
        "pass",
        *(f"{name}, {unit}" for name in MECHANISMS for unit in ("ms", "MB")),
    ):
        table.add_column(column, justify="left" if column in ("place", "pass") else "right", no_wrap=True)
    for row in report["rows"]:
        cells = []
        for name in MECHANISMS:
            extra = row["peak_extra_bytes"][name]
            cells += [f"{row['ms'][name]:.1f}", "scaled" if extra is None else f"{extra / 1e6:.1f}"]
        tokens = math.prod(row["grid"])
        table.add_row(row["place"], "x".join(map(str, row["grid"])), str(tokens), row["pass"], *cells)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    for tokens in sorted({math.prod(row["grid"]) for row in report["rows"] if row["scaled_from_queries"]}):
        console.print(
            f"scaled: the time of {PART} of {tokens} queries, times {tokens / PART:.0f}; the whole N x N map in "
            f"float32 would take {4 * tokens**2 / 1e9:.0f} GB",
            soft_wrap=True,
        )
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)
    console.print("MB: peak beyond what was held before, in torch's allocator, output included", soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 512), metavar=("H", "W"))
    parser.add_argument("--max-disparity", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5, help="rounds per cell (default 5)")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds per mechanism and cell (default 10)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What the exact forms on the CPU hold at once: time over the size of a chunk, in units of the size that is taken.

    OMP_NUM_THREADS=1 python benchmarks/chunk_sizes.py [--repeats 11] [--json FILE]

Every size of a row runs interleaved in one process; the answer is the median.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from interleaved import machine, median_ms
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from visionattn.attention.build import build_attention
from visionattn.blocks.mlp import Mlp
from visionattn.ops import group_correlation, mlp, tiled_soft_argmax, window_groups

FACTORS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 1000)
"""Of the size that is taken; the last one: all at once."""


class Form(NamedTuple):
    """An exact form and the number that says how much it holds at once."""

    name: str
    module: ModuleType
    number: str
    call: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    learned: tuple[nn.Parameter, ...] = ()
    passes: tuple[bool, ...] = (False, True)  # with a backward or without


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    rows = []
    for form in forms():
        for training in form.passes:
            taken = getattr(form.module, form.number)
            runs = {
                str(factor): partial(step, form, max(1, int(factor * taken)), training=training) for factor in FACTORS
            }
            times = median_ms(runs, torch.device("cpu"), repeats=args.repeats, budget_s=args.budget)
            rows.append(
                {
                    "form": form.name,
                    "number": f"{form.module.__name__}.{form.number}",
                    "taken": taken,
                    "pass": "forward + backward" if training else "forward",
                    "ms": times,
                }
            )
            setattr(form.module, form.number, taken)
            print(f"{form.name}, {rows[-1]['pass']}: {times['1']:.3g} ms", flush=True)
    report = {"machine": machine(torch.device("cpu")), "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def forms() -> list[Form]:
    found = []
    for side, channels, heads in ((126, 96, 3), (28, 384, 12)):
        mixer = build_attention({"type": "WindowAttention", "num_heads": heads, "shift": (3, 3)}, channels)
        name = f"windows, {side}x{side}, C{channels}"
        x = torch.randn(1, side, side, channels)
        found.append(Form(name, window_groups, "_POSITIONS", mixer, (x,), tuple(mixer.parameters())))
    for tokens, channels in ((128 * 128, 96), (64 * 64, 192)):
        perceptron = Mlp(channels, 4 * channels)
        x, learned = torch.randn(1, tokens, channels), tuple(perceptron.parameters())
        name = f"perceptron, {tokens} tokens, C{channels}"
        fused = mlp._HAS_FUSED  # then another number counts where no backward follows
        if fused:
            found.append(Form(name, mlp, "_FUSED_CHUNK_BYTES", perceptron, (x,), learned, (False,)))
        passes = (True,) if fused else (False, True)
        found.append(Form(name, mlp, "_CHUNK_BYTES", perceptron, (x,), learned, passes))
    maps = torch.randn(1, 320, 32, 64), torch.randn(1, 320, 32, 64)
    correlate = partial(group_correlation.walked_group_correlation, disparities=24, groups=40)
    found.append(Form("group correlation, 32x64, D24", group_correlation, "_CHUNK_BYTES", correlate, maps))
    regress = partial(tiled_soft_argmax.tiled_soft_argmax, max_disparity=96, height=128, width=256)
    costs = (torch.randn(1, 24, 32, 64),)
    found.append(Form("regression, 128x256, D96", tiled_soft_argmax, "_TILE_BYTES", regress, costs))
    return found


def step(form: Form, held: int, *, training: bool) -> object:
    setattr(form.module, form.number, held)
    if not training:
        with torch.no_grad():
            return form.call(*form.inputs)
    leaves = [t.detach().requires_grad_() for t in form.inputs]
    out = form.call(*leaves)
    return torch.autograd.grad(out.sum(), [*leaves, *form.learned])


def show(report: dict[str, Any]) -> None:
    table = Table(title="time over that of the size that is taken", title_justify="left")
    table.add_column("form")
    table.add_column("pass")
    for heading in ("taken", "ms", *("all" if factor == 1000 else f"{factor:g}x" for factor in FACTORS)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["rows"]:
        chosen = row["ms"]["1"]
        ratios = [f"{row['ms'][str(factor)] / chosen:.2f}" for factor in FACTORS]
        table.add_row(row["form"], row["pass"], f"{row['taken']:,}", f"{chosen:.3g}", *ratios)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=11, help="rounds per row (default 11)")
    parser.add_argument("--budget", type=float, default=0.6, help="seconds per size and row (default 0.6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()

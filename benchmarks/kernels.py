"""The Triton kernels against their equations in plain PyTorch, eager and compiled, and against fused softmax attention.

    python benchmarks/kernels.py [--quick] [--json FILE]

On a CUDA device. Every form of a cell runs interleaved in one process on rotating inputs that together exceed the
second-level cache; the answer is the median. Before anything is timed the kernels' answers and gradients are compared
with the plain form in float64, and nothing is reported where they differ by more than twice what plain PyTorch does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from interleaved import machine, median_ms
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from visionattn.analysis.memory import peak_extra_bytes
from visionattn.ops.efficient_attention import efficient_attention
from visionattn.ops.feature_attention import favor_attention, linear_attention
from visionattn.ops.kernels.dispatch import why_not

SIDES = (64, 128, 256)
BATCH, HEADS, WIDTH = 8, 8, 64
FEATURES = 266
LONGEST_SOFTMAX = 64 * 64
SETS = 3
FORMS = ("kernels", "eager", "compiled", "softmax")

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


class Cell(NamedTuple):
    """One row: an equation at one size."""

    name: str
    op: str
    attend: Attention
    side: int
    dtype: torch.dtype
    training: bool


def main() -> None:
    args = parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/kernels.py: no CUDA device, on which alone the kernels run; nothing was measured")
    device = torch.device("cuda")
    rate = copied_bytes_per_second(device)
    generator = torch.Generator(device).manual_seed(0)
    projection = torch.randn(FEATURES, WIDTH, device=device, generator=generator)
    equations: dict[str, tuple[str, Attention]] = {
        "efficient attention": ("efficient_attention", efficient_attention),
        "linear attention": ("feature_attention", linear_attention),
        "Performer": ("feature_attention", partial(favor_attention, projection=projection)),
    }
    rows = []
    sides = SIDES[:1] if args.quick else SIDES
    for (name, (op, attend)), side, dtype, training in itertools.product(
        equations.items(), sides, (torch.bfloat16, torch.float32), (False, True)
    ):
        rows.append(measure(Cell(name, op, attend, side, dtype, training), device, rate, args))
        print(json.dumps(rows[-1]), flush=True)
    report = {"machine": machine(device), "copied GB/s": rate / 1e9, "batch": BATCH, "heads": HEADS, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def measure(cell: Cell, device: torch.device, rate: float, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and extra megabytes of every form, and the share of the device's copying rate that ours reaches."""
    sets = [inputs(cell, device, seed) for seed in range(SETS)]
    refuse_if_wrong(cell, sets[0])
    forms: dict[str, Attention] = {"kernels": cell.attend, "eager": partial(plain, cell.attend)}
    if cell.name == "efficient attention" and cell.dtype == torch.bfloat16:  # the others would take minutes
        torch.compiler.reset()
        forms["compiled"] = partial(plain, torch.compile(cell.attend, fullgraph=True))
        if cell.side**2 <= LONGEST_SOFTMAX:
            forms["softmax"] = F.scaled_dot_product_attention
    runs = {name: partial(step, form, itertools.cycle(sets), cell.training) for name, form in forms.items()}
    times = median_ms(runs, device, repeats=args.repeats, budget_s=args.budget)
    tensors = 4 + 7 * cell.training  # read q, k, v, write out; read q, k, v, its gradient, write three gradients
    moved = tensors * sets[0][0].numel() * sets[0][0].element_size()
    return {
        "equation": cell.name,
        "side": cell.side,
        "dtype": str(cell.dtype).removeprefix("torch."),
        "pass": "forward + backward" if cell.training else "forward",
        "ms": times,
        "MB": {name: peak_extra_bytes(run, device) / 1e6 for name, run in runs.items()},
        "share of copying rate": moved / rate / (times["kernels"] / 1e3),
    }


def inputs(cell: Cell, device: torch.device, seed: int) -> tuple[Tensor, ...]:
    """q, k, v and the gradient of the answer, token by token in memory, as a projection leaves them."""
    generator = torch.Generator(device).manual_seed(seed)
    return tuple(
        torch.randn(BATCH, cell.side**2, HEADS, WIDTH, device=device, dtype=cell.dtype, generator=generator)
        .transpose(1, 2)
        .requires_grad_(cell.training and part < 3)
        for part in range(4)
    )


def step(form: Attention, sets: itertools.cycle[tuple[Tensor, ...]], training: bool) -> None:
    q, k, v, grad = next(sets)
    out = form(q, k, v)
    if training:
        torch.autograd.grad(out, (q, k, v), grad)


def plain(attend: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The plain form, whatever the device."""
    before = os.environ.get("VISIONATTN_KERNELS", "on")
    os.environ["VISIONATTN_KERNELS"] = "off"
    try:
        return attend(q, k, v)
    finally:
        os.environ["VISIONATTN_KERNELS"] = before


def refuse_if_wrong(cell: Cell, tensors: tuple[Tensor, ...]) -> None:
    """Raises RuntimeError where no kernel serves, or one errs more than twice as much as plain PyTorch does."""
    few = [t[:1, :2].detach() for t in tensors]
    reason = why_not(cell.op, *few[:3])
    if reason is not None:
        raise RuntimeError(f"{cell.name}: no kernel serves, because {reason}")
    truth = answers(partial(plain, cell.attend), [t.double() for t in few])
    ours, eager = answers(cell.attend, few), answers(partial(plain, cell.attend), few)
    for part, o, e, t in zip(("answer", "dq", "dk", "dv"), ours, eager, truth, strict=True):
        errors = [((found.double() - t).abs().max() / t.abs().max()).item() for found in (o, e)]
        if not errors[0] <= max(2 * errors[1], torch.finfo(cell.dtype).eps, 2e-6):
            where = f"{cell.name}, {cell.side} x {cell.side}, {cell.dtype}, {part}"
            raise RuntimeError(f"{where}: the kernels err by {errors[0]}, plain PyTorch by {errors[1]}")


def answers(form: Attention, tensors: list[Tensor]) -> list[Tensor]:
    q, k, v = (t.clone().requires_grad_() for t in tensors[:3])
    out = form(q, k, v)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), tensors[3])]


def copied_bytes_per_second(device: torch.device) -> float:
    """What copying 1 GiB reaches, read and written bytes together."""
    source = torch.empty(2**28, device=device)
    target = torch.empty_like(source)
    times = median_ms({"copy": lambda: target.copy_(source)}, device, repeats=5, budget_s=2)
    return 2 * source.numel() * source.element_size() / (times["copy"] / 1e3)


def show(report: dict[str, Any]) -> None:
    table = Table(title=f"{report['machine']}, copies at {report['copied GB/s']:.0f} GB/s", title_justify="left")
    for heading in (
        "equation",
        "tokens",
        "dtype",
        "pass",
        *(f"{form}, ms" for form in FORMS),
        "share",
        "MB",
        "eager MB",
    ):
        table.add_column(heading, justify="left" if heading in ("equation", "dtype", "pass") else "right")
    for row in report["rows"]:
        times = [f"{row['ms'][form]:.3f}" if form in row["ms"] else "" for form in FORMS]
        memory = [f"{row['MB'][form]:.0f}" for form in ("kernels", "eager")]
        share = f"{row['share of copying rate']:.0%}"
        table.add_row(row["equation"], f"{row['side']}²", row["dtype"], row["pass"], *times, share, *memory)
    Console(width=max(140, Console().width)).print(table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 x 64 tokens only")
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for one form of a cell")
    parser.add_argument("--json", type=Path, help="write everything that was measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()

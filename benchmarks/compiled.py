"""Mechanisms as they are against themselves through torch.compile: time, forward and forward + backward.

    OMP_NUM_THREADS=1 python benchmarks/compiled.py [MECHANISM ...] [--device cuda] [--json FILE]

Both run interleaved in one process; the answer is the median. Answers and gradients are compared before.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, median_ms
from torch import Tensor, nn

from visionattn.attention.build import build_attention

CASES: dict[str, tuple[dict[str, Any], int, tuple[int, int]]] = {  # options, channels, map
    "LinearAttention": ({"num_heads": 8}, 256, (64, 64)),
    "Performer": ({"num_heads": 8}, 256, (64, 64)),
    "WindowAttention": ({"num_heads": 3, "shift": (3, 3)}, 96, (126, 126)),
    "EfficientAttention": ({"num_heads": 8, "key_dim": 128}, 256, (64, 64)),
}
TOLERANCE = 1e-4


def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    rows = []
    for name in args.mechanisms or CASES:
        options, dim, grid = CASES[name]
        torch.manual_seed(0)
        torch.compiler.reset()
        plain = build_attention({"type": name, **options}, dim).to(device)
        compiled = copy.deepcopy(plain)
        compiled.compile(dynamic=False)
        x = torch.randn(1, *grid, dim, device=device)
        for way, run in (("forward", forward), ("forward + backward", forward_backward)):
            refuse_if_different(f"{name}, {way}", run(plain, x), run(compiled, x))
            runs: dict[str, Callable[[], object]] = {
                "plain": partial(run, plain, x),
                "compiled": partial(run, compiled, x),
            }
            ms = median_ms(runs, device, repeats=args.repeats, budget_s=args.budget)
            rows.append({"mechanism": name, **options, "dim": dim, "grid": grid, "pass": way, "ms": ms})
            print(
                f"{name} {grid[0]}x{grid[1]} C{dim} {way}: {ms['plain']:.1f} ms, compiled {ms['compiled']:.1f} ms, "
                f"{ms['plain'] / ms['compiled']:.2f}x",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=1) + "\n")


def forward(mixer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return (mixer(x),)


def forward_backward(mixer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    leaf = x.detach().requires_grad_()
    out = mixer(leaf)
    return torch.autograd.grad(out, [leaf, *mixer.parameters()], torch.ones_like(out))


def refuse_if_different(what: str, plain: tuple[Tensor, ...], compiled: tuple[Tensor, ...]) -> None:
    for ours, other in zip(plain, compiled, strict=True):
        error = float((ours - other).abs().max() / ours.abs().max().clamp(min=1e-9))
        if not error <= TOLERANCE:
            raise SystemExit(f"{what}: plain and compiled differ by {error:.1e}; nothing timed")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "mechanisms", nargs="*", metavar="MECHANISM", help=f"of {', '.join(CASES)}; all if none is given"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=9, help="rounds (default 9)")
    parser.add_argument("--budget", type=float, default=0.6, help="seconds per candidate (default 0.6)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    args = parser.parse_args()
    unknown = [name for name in args.mechanisms if name not in CASES]
    if unknown:
        parser.error(f"{unknown[0]} is not among {', '.join(CASES)}")
    return args


if __name__ == "__main__":
    main()

"""Our efficient-attention block against the published loop, a batched form, fused softmax attention and non-local.

    python benchmarks/attention_block.py [--quick] [--threads 2] [--device cuda] [--json FILE]

All candidates of a cell run interleaved in one process; the answer is the median. Before anything is timed, our
block, the loop and the batched form are compared on the same weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, median_ms
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from visionattn.analysis.kernel_bench.block_peers import Batched, FusedSoftmax, PerHeadLoop
from visionattn.analysis.memory import peak_extra_bytes
from visionattn.blocks.plugin import AttentionPlugin
from visionattn.segmentation.kernel_peers import non_local

WIDTHS = ((64, 64), (256, 128))  # channels, key width
SIDES = (32, 64, 128)
HEADS = (1, 8)
TOLERANCE = 1e-4
PEERS = ("loop", "batched", "sdpa", "nonlocal")


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    rows = []
    for channels, key_dim in WIDTHS:
        for side in (32, 64) if args.quick else SIDES:
            for heads in HEADS:
                torch.manual_seed(0)
                blocks = make_blocks(channels, key_dim, heads, device)
                x = torch.randn(args.batch, channels, side, side, device=device)
                check_equal(blocks, x)
                for training in (False, True):
                    rows.append(measure(blocks, x, training, args))
                    print(summary(rows[-1]), flush=True)
    report = {"machine": machine(device), "batch": args.batch, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def our_block(channels: int, key_dim: int, heads: int) -> AttentionPlugin:
    """x + EfficientAttention(x), values as wide as the map."""
    attention = {"type": "EfficientAttention", "key_dim": key_dim, "num_heads": heads}
    return AttentionPlugin(channels, attention, zero_init=False)


def make_blocks(channels: int, key_dim: int, heads: int, device: torch.device) -> dict[str, nn.Module]:
    ours = our_block(channels, key_dim, heads)
    loop, batched = (form(channels, key_dim, channels, heads) for form in (PerHeadLoop, Batched))
    for peer in (loop, batched):
        peer.copy_weights(ours.attn)
    blocks = {
        "ours": ours,
        "loop": loop,
        "batched": batched,
        "sdpa": FusedSoftmax(channels, key_dim, heads),
        "nonlocal": non_local(channels),
    }
    return {name: block.to(device).eval() for name, block in blocks.items()}


def check_equal(blocks: dict[str, nn.Module], x: Tensor) -> None:
    """Refuses to go on unless ours, the loop and the batched form give one output and one gradient of the input."""
    results = {name: run_both(blocks[name], x.clone().requires_grad_()) for name in ("ours", "loop", "batched")}
    for name in ("ours", "batched"):
        for what, got, wanted in zip(("output", "gradient"), results[name], results["loop"], strict=True):
            error = float((got - wanted).abs().max() / wanted.abs().max())
            if not error <= TOLERANCE:
                raise SystemExit(f"{name} and the loop differ: {what} by {error:.1e} on {list(x.shape)}; nothing timed")


def run_both(block: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    out = block(x)
    (grad,) = torch.autograd.grad(out.square().sum(), x)
    return out.detach(), grad


def measure(blocks: dict[str, nn.Module], x: Tensor, training: bool, args: argparse.Namespace) -> dict[str, Any]:
    """One row: median milliseconds and peak extra bytes by candidate; None where memory would not have sufficed."""
    runs = {name: make_run(block, x, training) for name, block in blocks.items()}
    skipped = [name for name in ("nonlocal",) if not fits(x, training)]
    runs = {name: run for name, run in runs.items() if name not in skipped}
    times = median_ms(runs, x.device, repeats=args.repeats, budget_s=args.budget)
    extra = {name: peak_extra_bytes(run, x.device) for name, run in runs.items()}
    return {
        "channels": x.shape[1],
        "side": x.shape[2],
        "heads": blocks["ours"].attn.num_heads,
        "pass": "forward + backward" if training else "forward",
        "ms": times | dict.fromkeys(skipped),
        "peak_extra_bytes": extra | dict.fromkeys(skipped),
    }


def make_run(block: nn.Module, x: Tensor, training: bool) -> Callable[[], Tensor]:
    def forward() -> Tensor:
        with torch.no_grad():
            return block(x)

    leaf, grad = x.detach().clone().requires_grad_(), torch.randn_like(x)

    def forward_backward() -> Tensor:
        leaf.grad = None
        block.zero_grad(set_to_none=True)
        out = block(leaf)
        out.backward(grad)
        return out

    return forward_backward if training else forward


def fits(x: Tensor, training: bool) -> bool:
    """Whether non-local's N x N maps, five of them in training, leave a quarter of the free memory to others."""
    maps = x.shape[0] * (x.shape[2] * x.shape[3]) ** 2 * x.element_size() * (5 if training else 2)
    if x.device.type == "cuda":
        free = torch.cuda.mem_get_info(x.device)[0]
    else:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return maps < 0.75 * free


def summary(row: dict[str, Any]) -> str:
    ms = row["ms"]
    ratios = ", ".join(f"{peer} {ms[peer] / ms['ours']:.2f}x" for peer in PEERS if ms[peer] is not None)
    cell = f"C{row['channels']} {row['side']}x{row['side']} h{row['heads']} {row['pass']}"
    return f"{cell}: ours {ms['ours']:.2f} ms; {ratios}"


def show(report: dict[str, Any]) -> None:
    """The table: milliseconds and, for each peer, how many times ours it takes; peak extra memory likewise."""
    about = report["machine"]
    table = Table(title=f"efficient-attention block, batch {report['batch']}, median ms (times ours)")
    for column in ("C", "map", "heads", "pass", "ours", *PEERS, "ours MB", *(f"{peer} MB" for peer in PEERS)):
        table.add_column(column, justify="left" if column == "pass" else "right", no_wrap=True)
    for row in report["rows"]:
        ms, extra = row["ms"], {k: None if v is None else v / 1e6 for k, v in row["peak_extra_bytes"].items()}
        table.add_row(
            str(row["channels"]),
            f"{row['side']}x{row['side']}",
            str(row["heads"]),
            row["pass"],
            f"{ms['ours']:.2f}",
            *(against(ms[peer], ms["ours"], ".1f", ".2f") for peer in PEERS),
            f"{extra['ours']:.1f}",
            *(against(extra[peer], extra["ours"], ".0f", ".1f") for peer in PEERS),
        )
    console = Console(width=None if Console().is_terminal else 240)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), soft_wrap=True)
    console.print("MB: peak beyond what was held before, in torch's allocator, output included", soft_wrap=True)


def against(value: float | None, ours: float, number: str, ratio: str) -> str:
    return "no memory" if value is None else f"{value:{number}} ({value / ours:{ratio}}x)"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="maps up to 64 x 64 only")
    parser.add_argument("--repeats", type=int, default=21, help="rounds per cell (default 21)")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds per candidate and cell (default 3)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Our Swin-T against those of timm, torchvision and mmseg: time and peak memory, eval and forward + backward.

    python benchmarks/backbones.py [--size 512] [--threads 2] [--device cuda] [--compile] [--json FILE]

All models run interleaved in one process; the answer is the median. Before anything is timed, the maps of all stages
and the gradient of the image are compared with the same weights; the script refuses to report on a mismatch.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from backbone_peers import PEERS, make_peer, our_swin, our_swin_as
from interleaved import machine, median_ms
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from visionattn.analysis.memory import peak_extra_bytes
from visionattn.backbones.swin import SwinTransformer

TOLERANCE = 1e-4


def main() -> None:
    args = parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)  # of the peers, about their own optional packages
    logging.disable(logging.WARNING)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    image = torch.randn(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(1)).to(device)
    models = make_models(image)
    if args.compile:
        models |= {f"{name} compiled": torch.compile(model) for name, model in models.items()}
    rows = []
    for training in (False, True):
        rows.append(measure(models, image, training, args))
        print(summary(rows[-1]), flush=True)
    report = {"machine": machine(device), "batch": args.batch, "size": args.size, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def make_models(image: Tensor) -> dict[str, nn.Module]:
    """Ours and the peers that are installed, with the same weights, each compared with ours."""
    ours = our_swin()
    models: dict[str, nn.Module] = {"ours": ours.to(image.device)}
    for name in PEERS:
        try:
            peer = make_peer(name, ours, tuple(image.shape[2:])).to(image.device)
        except ImportError as error:
            print(f"{name} is left out: {error}")
            continue
        check_equal(name, our_swin_as(name, ours).to(image.device), peer, image)
        models[name] = peer
    return models


def check_equal(name: str, ours: SwinTransformer, peer: nn.Module, image: Tensor) -> None:
    """Refuses to go on unless both give the same maps, in eval and in training, and the same gradient of the image."""
    for training in (False, True):
        results = []
        for model in (ours, peer):
            model.train(training)
            leaf = image.clone().requires_grad_(training)
            with torch.set_grad_enabled(training):
                maps = model(leaf)
            if training:
                generator = torch.Generator().manual_seed(2)
                grads = [torch.randn(m.shape, generator=generator).to(m.device) for m in maps]
                torch.autograd.backward(maps, grads)
                maps = [*maps, leaf.grad]
            results.append([m.detach() for m in maps])
            model.zero_grad(set_to_none=True)
        for number, (a, b) in enumerate(zip(*results, strict=True)):
            error = float((a - b).abs().max() / b.abs().max())
            if not error <= TOLERANCE:
                what = f"map {number}" if number < 4 else "the gradient of the image"
                raise SystemExit(f"ours and {name} differ: {what} by {error:.1e} at {list(image.shape)}; nothing timed")


def measure(models: Mapping[str, nn.Module], image: Tensor, training: bool, args: argparse.Namespace) -> dict[str, Any]:
    """One row: median milliseconds and peak extra bytes by model."""
    for model in models.values():
        model.train(training)
    runs = {name: make_run(model, image, training) for name, model in models.items()}
    return {
        "pass": "forward + backward" if training else "eval",
        "ms": median_ms(runs, image.device, repeats=args.repeats, budget_s=args.budget),
        "peak_extra_bytes": {name: peak_extra_bytes(run, image.device) for name, run in runs.items()},
    }


def make_run(model: nn.Module, image: Tensor, training: bool) -> Callable[[], object]:
    def forward() -> object:
        with torch.no_grad():
            return model(image)

    with torch.no_grad():
        grads = [torch.randn_like(m) for m in model(image)]

    def forward_backward() -> object:
        model.zero_grad(set_to_none=True)
        maps = model(image)
        torch.autograd.backward(maps, grads)
        return maps

    return forward_backward if training else forward


def summary(row: Mapping[str, Any]) -> str:
    ms = row["ms"]
    ratios = ", ".join(f"{name} {spent / ms['ours']:.2f}x" for name, spent in ms.items() if name != "ours")
    return f"{row['pass']}: ours {ms['ours']:.0f} ms; {ratios}"


def show(report: Mapping[str, Any]) -> None:
    """The table: milliseconds and peak memory, and how many times ours each peer takes."""
    size = report["size"]
    table = Table(title=f"Swin-T {size}x{size}, batch {report['batch']}, float32, median (times ours)")
    for column in ("pass", "model", "ms", "", "MB", ""):
        table.add_column(column, justify="left" if column in ("pass", "model") else "right", no_wrap=True)
    for row in report["rows"]:
        ms, extra = row["ms"], row["peak_extra_bytes"]
        for name in ms:
            table.add_row(
                row["pass"] if name == "ours" else "",
                name,
                f"{ms[name]:.1f}" if ms[name] < 100 else f"{ms[name]:.0f}",
                f"{ms[name] / ms['ours']:.2f}x",
                f"{extra[name] / 1e6:.0f}",
                f"{extra[name] / extra['ours']:.2f}x",
            )
        table.add_section()
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)
    console.print("MB: peak beyond what was held before, in torch's allocator, output included", soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--size", type=int, default=512, help="height and width of the image, 224 or more (default 512)"
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="rounds per pass (default 15)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per model and pass (default 60)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--compile", action="store_true", help="each model also through torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    args = parser.parse_args()
    if args.size < 224:
        parser.error(f"--size {args.size}: timm's windows shrink with maps below 224, and the weights no longer fit")
    return args


if __name__ == "__main__":
    main()

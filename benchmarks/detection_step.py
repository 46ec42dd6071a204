"""Time and memory of a detector's training step at 800x1333, with attention and without.

    python benchmarks/detection_step.py [CONFIG ...] [--size H W] [--batch N] [--device NAME] [--json FILE]

A step is a loss on one made-up batch, its backward, and SGD; memory is the most that torch's allocator held beyond
weights and batch. Attention stands there twice: as this package runs it, with its exact shortcuts (non-local through
scaled_dot_product_attention), and as published, every matrix of the formula in memory. A configuration whose step runs
out of memory says so. The GPU's branch was not run.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from interleaved import machine, median_ms
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table

from visionattn.analysis.macs import published_form
from visionattn.analysis.memory import peak_extra_bytes
from visionattn.attention.base import TokenMixer
from visionattn.detection import DetectionSample
from visionattn.engine.config import load_config
from visionattn.registry import MODELS

CONFIGS = [
    "detection/mask_rcnn_r50-fpn_8xb2-1x_coco",
    *(f"detection/mask_rcnn_r50-fpn-efficient-x{modules}_8xb2-1x_coco" for modules in (1, 5, 7)),
    "detection/mask_rcnn_r50-fpn-nonlocal-x1_8xb2-1x_coco",
    "detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco",
    "detection/faster_rcnn_r50-fpn_8xb2-1x_coco",
    "detection/retinanet_r50-fpn_8xb2-1x_coco",
    "detection/fcos_r50-fpn_8xb2-1x_coco",
]


def made_up_batch(size: tuple[int, int], images: int, classes: int) -> dict[str, Any]:
    """What a loader gives: noise with eight objects from a tenth to half of the picture, and their masks."""
    draw = torch.Generator().manual_seed(0)
    height, width = size
    samples = []
    for number in range(images):
        extent = torch.rand(8, 2, generator=draw) * 0.4 + 0.1
        corner = torch.rand(8, 2, generator=draw) * (1 - extent)
        sample = DetectionSample(metainfo={"image_id": number, "ori_shape": size})
        sample.boxes = torch.cat([corner, corner + extent], 1) * torch.tensor([width, height] * 2)
        sample.labels = torch.randint(classes, (8,), generator=draw)
        sample.masks = torch.zeros(8, height, width, dtype=torch.uint8)
        for mask, (left, top, right, bottom) in zip(sample.masks, sample.boxes.int().tolist(), strict=True):
            mask[top : bottom + 1, left : right + 1] = 1
        samples.append(sample)
    inputs = [torch.randint(256, (3, height, width), generator=draw, dtype=torch.uint8) for _ in range(images)]
    return {"inputs": inputs, "data_samples": samples}


def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    report: dict[str, Any] = {"machine": machine(device), "size": args.size, "batch": args.batch, "rows": []}
    for name in args.configs:
        config = load_config(name)
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope(config.default_scope):
            model = MODELS.build(config.model).to(device).train()
        batch = made_up_batch(tuple(args.size), args.batch, model.head.num_classes)
        modules = sum(isinstance(module, TokenMixer) for module in model.modules())
        for form in ("as it runs here", "as published") if modules else ("",):
            with published_form() if form == "as published" else nullcontext():
                row = measured(model, batch, device, args)
            report["rows"].append({"config": name, "form": form, "modules": modules, **row})
            print(name, form, row, flush=True)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report)


def measured(model: Any, batch: dict[str, Any], device: torch.device, args: argparse.Namespace) -> dict[str, Any]:
    """Median milliseconds and peak bytes of a step; None for both where memory does not suffice."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)

    def step() -> None:
        ready = model.data_preprocessor(batch, training=True)
        optimizer.zero_grad()
        sum(model(**ready, mode="loss").values()).backward()
        optimizer.step()

    try:
        step()  # the optimiser's state is there before memory is counted
        peak = peak_extra_bytes(step, device)
        return {"peak_bytes": peak, "ms": median_ms({"": step}, device, repeats=args.repeats, budget_s=60.0)[""]}
    except (torch.OutOfMemoryError, MemoryError):
        return {"peak_bytes": None, "ms": None}


def print_report(report: dict[str, Any]) -> None:
    height, width = report["size"]
    table = Table(title=f"training step, {report['batch']} x {height}x{width}")
    for heading in ("config", "attention", "ms", "peak memory, GB"):
        table.add_column(heading, justify="left" if heading in ("config", "attention") else "right")
    for row in report["rows"]:
        attention = f"{row['modules']}, {row['form']}" if row["modules"] else "-"
        figures = (
            ("out of memory", "-") if row["ms"] is None else (f"{row['ms']:,.0f}", f"{row['peak_bytes'] / 1e9:.2f}")
        )
        table.add_row(row["config"].removeprefix("detection/"), attention, *figures)
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=CONFIGS, metavar="CONFIG", help="the published recipes if none")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar="N", help="height, width (800 1333)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="NAME")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="timed rounds, the median counts (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()

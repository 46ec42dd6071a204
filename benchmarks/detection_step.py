"""Time and memory of a detector's training step at 800x1333, with efficient attention, non-local attention, and none.

    python benchmarks/detection_step.py [ROW ...] [--size H W] [--batch N] [--device NAME] [--out DIR] [--list]

A step is a loss on one made-up batch, its backward, and SGD; memory is the most that torch's allocator held beyond
weights and batch. Non-local modules stand in the places of the efficient ones, twice: through
scaled_dot_product_attention, and as published, with the map of all pairs of tokens in memory. Where these maps cannot
fit, their size is said instead, from its closed form: 4 bytes for each pair, kept for the backward, and as much again
twice while a softmax or its gradient is made. GMACs are the published forms', of a forward with 1,000 proposals, as
`visionattn cost` counts them. Every row runs in a process of its own; one that is in DIR already is not run again. The
GPU's branch was not run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from interleaved import machine
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.table import Table
from torch.nn.attention import SDPBackend, sdpa_kernel

from visionattn.analysis.interleaved import meter_of
from visionattn.analysis.macs import count_macs, published_form
from visionattn.analysis.memory import peak_extra_bytes
from visionattn.attention.non_local import NonLocal
from visionattn.detection import DetectionSample
from visionattn.engine.config import load_config
from visionattn.registry import MODELS


@dataclass(frozen=True)
class Row:
    """A config, and what its efficient attention modules are replaced by."""

    config: str
    attention: str = ""
    materialised: bool = False

    @property
    def non_local(self) -> bool:
        return self.attention.startswith("non-local")


_R50 = "detection/mask_rcnn_r50-fpn{}_8xb2-1x_coco"
ROWS = {
    "mask_rcnn_r50": Row(_R50.format("")),
    **{f"mask_rcnn_r50-ea-x{n}": Row(_R50.format(f"-efficient-x{n}"), f"efficient x {n}") for n in (1, 5, 7)},
    **{f"mask_rcnn_r50-nl-x{n}": Row(_R50.format(f"-efficient-x{n}"), f"non-local x {n}, fused") for n in (1, 5, 7)},
    **{
        f"mask_rcnn_r50-nl-x{n}-map": Row(_R50.format(f"-efficient-x{n}"), f"non-local x {n}, materialised", True)
        for n in (1, 5, 7)
    },
    "mask_rcnn_swin-t": Row("detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco", "shifted windows"),
    "faster_rcnn_r50": Row("detection/faster_rcnn_r50-fpn_8xb2-1x_coco"),
    "retinanet_r50": Row("detection/retinanet_r50-fpn_8xb2-1x_coco"),
    "fcos_r50": Row("detection/fcos_r50-fpn_8xb2-1x_coco"),
}


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
    if args.list:
        print("\n".join(ROWS))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.row:
        found = measured(ROWS[args.row], args)
        (args.out / f"{args.row}.json").write_text(json.dumps(found, indent=1) + "\n")
        return
    for name in args.rows:
        if not (args.out / f"{name}.json").is_file():
            print(name, flush=True)
            given = ["--size", *map(str, args.size), "--batch", str(args.batch), "--device", args.device]
            given += [
                "--repeats",
                str(args.repeats),
                "--budget",
                str(args.budget),
                "--out",
                str(args.out),
                "--row",
                name,
            ]
            subprocess.run([sys.executable, __file__, *given], check=False)  # one that is killed leaves no row
    files = {name: args.out / f"{name}.json" for name in ROWS}
    print_report({name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()})


def measured(row: Row, args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds and peak bytes of a step, None where the maps do not fit; GMACs; the maps' size."""
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = model_of(row).to(device).train()
    batch = made_up_batch(tuple(args.size), args.batch, model.head.num_classes)
    ready = model.data_preprocessor(batch, training=True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6, momentum=0.9)
    found: dict[str, Any] = {
        "config": row.config,
        "attention": row.attention,
        "size": args.size,
        "batch": args.batch,
        "machine": machine(device),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    model.eval()
    with watched(model) as tokens, published_form():
        found["gmacs"] = count_macs(lambda: model(ready["inputs"])).total / 1e9
    model.train()
    found["map_bytes"] = [4 * args.batch * number**2 for number in tokens] if row.non_local else []
    needed = sum(found["map_bytes"]) + 2 * max(found["map_bytes"], default=0)
    if row.materialised and needed > available_bytes(device):
        return {**found, "needed_bytes": needed, "ms": None, "peak_bytes": None}

    def step() -> None:
        optimizer.zero_grad()
        sum(model(**ready, mode="loss").values()).backward()
        optimizer.step()

    with sdpa_kernel(SDPBackend.MATH) if row.materialised else nullcontext():
        step()  # the optimiser's state is there before memory is counted
        peak = peak_extra_bytes(step, device)
        times: list[float] = []
        while len(times) < args.repeats and sum(times) < 1e3 * args.budget:
            times.append(meter_of(device)(step, 1))
    return {**found, "ms": sorted(times)[len(times) // 2], "repeats": len(times), "peak_bytes": peak}


def model_of(row: Row) -> Any:
    """The config's detector, non-local modules in the efficient ones' places where the row says so."""
    config = load_config(row.config)
    if row.non_local:
        backbone, neck = config.model.backbone, config.model.neck
        backbone.attention = {place: {"type": "NonLocal"} for place in backbone.attention}
        if neck.get("attention"):
            neck.attention = [None if one is None else {"type": "NonLocal"} for one in neck.attention]
    with DefaultScope.overwrite_default_scope(config.default_scope):
        return MODELS.build(config.model)


@contextmanager
def watched(model: torch.nn.Module) -> Iterator[list[int]]:
    """The number of tokens of every non-local module that runs, in their order."""
    tokens: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: tokens.append(args[0][0, ..., 0].numel()))
        for module in model.modules()
        if isinstance(module, NonLocal)
    ]
    try:
        yield tokens
    finally:
        for hook in hooks:
            hook.remove()


def available_bytes(device: torch.device) -> int:
    """What is free now, on the device or in the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/meminfo does not say how much memory is available")


def print_report(rows: dict[str, dict[str, Any]]) -> None:
    first = next(iter(rows.values()), None)
    if first is None:
        return
    table = Table(title=f"training step, {first['batch']} x {first['size'][0]}x{first['size'][1]}")
    for heading in ("config", "attention", "million parameters", "GMACs", "s", "peak memory, GB"):
        table.add_column(heading, justify="left" if heading in ("config", "attention") else "right")
    for found in rows.values():
        figures = (f"{found['parameters'] / 1e6:.1f}", f"{found['gmacs']:.0f}")
        if found["ms"] is None:
            figures += ("-", f"does not fit: {found['needed_bytes'] / 1e9:.0f} for maps alone")
        else:
            figures += (f"{found['ms'] / 1e3:.1f}", f"{found['peak_bytes'] / 1e9:.2f}")
        table.add_row(found["config"].rpartition("/")[2], found["attention"] or "-", *figures)
    console = Console(width=None if Console().is_terminal else 140)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in first["machine"].items()), soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), metavar="ROW", help="names as of --list; all if none")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1333), metavar="N", help="height, width (800 1333)")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="timed steps, the median counts (3)")
    parser.add_argument("--budget", type=float, default=20.0, metavar="S", help="seconds after which no more is timed")
    parser.add_argument(
        "--out", type=Path, default="work_dirs/detection_step", metavar="DIR", help="a json for each row"
    )
    parser.add_argument("--list", action="store_true", help="say the rows' names")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.rows:
        if name not in ROWS:
            parser.error(f"{name} is none of {', '.join(ROWS)}")
    return args


if __name__ == "__main__":
    main()

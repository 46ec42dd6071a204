"""Training steps against torchvision's reference loop with the same model, and COCO's evaluation against pycocotools'.

    python benchmarks/detection.py [--size H W] [--batch N] [--images N] [--device NAME] [--json FILE]

Steps: Faster R-CNN on ResNet-18 with the same weights in both, the same images and objects; torchvision's loop is that
of its references/detection/engine.py (forward, sum of the losses, its value read, zero_grad, backward, step), ours is
mmengine's train_step. Images are there already: neither side's loading is timed.
Evaluation: the truth and the results of `coco_eval_known` (in the folder of $VISIONATTN_DATA), repeated under new ids
until there are as many images; boxes and masks. The metric of a training draws the truth's polygons once: "first segm"
is its first evaluation, with the drawing, "segm" every further one.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detection_step import made_up_batch
from interleaved import machine, median_ms
from mmengine.optim import OptimWrapper
from rich.console import Console
from rich.table import Table
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from visionattn.detection.coco_scores import coco_scores
from visionattn.detection.truth_masks import with_run_lengths
from visionattn.registry import MODELS

KNOWN = Path(os.environ.get("VISIONATTN_DATA", "../shared/data")) / "coco_eval_known"
CLASSES = 80


def main() -> None:
    args = parse_args()
    device = torch.device(args.device)
    steps = median_ms(training_steps(args, device), device, repeats=args.repeats, budget_s=120.0)
    speeds = {name: 1e3 * args.batch / ms for name, ms in steps.items()}
    report: dict[str, Any] = {"machine": machine(device), "images_per_s": speeds, "evaluation_s": {}}
    if KNOWN.is_dir():
        report["evaluation_s"] = {
            kind: evaluation_seconds(kind, args.images) for kind in ("bbox", "segm", "first segm")
        }
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    print_report(report, args)


def training_steps(args: argparse.Namespace, device: torch.device) -> dict[str, Callable[[], object]]:
    """A step of ours and one of torchvision's."""
    torch.manual_seed(0)
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=torch.nn.BatchNorm2d, trainable_layers=5
    )
    theirs = FasterRCNN(body, CLASSES + 1, min_size=min(args.size), max_size=max(args.size)).to(device).train()
    ours = MODELS.build(
        {
            "type": "visionattn.Detector",
            "backbone": {"type": "visionattn.TimmBackbone", "model_name": "resnet18"},
            "neck": {"type": "visionattn.FPN", "extra_levels": {"type": "visionattn.LastLevelMaxPool"}},
            "head": {"type": "visionattn.RCNNHead", "num_classes": CLASSES},
        }
    )
    ours.load_state_dict({_ours(name): value for name, value in theirs.state_dict().items()})
    ours.to(device).train()
    batch = made_up_batch(tuple(args.size), args.batch, CLASSES)
    images = [image.to(device) / 255 for image in batch["inputs"]]
    targets = [
        {"boxes": sample.boxes.to(device), "labels": sample.labels.to(device) + 1} for sample in batch["data_samples"]
    ]
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-6, momentum=0.9)
    our_optimizer = OptimWrapper(torch.optim.SGD(ours.parameters(), lr=1e-6, momentum=0.9))

    def their_step() -> None:
        losses = sum(theirs(images, targets).values())
        losses.item()
        their_optimizer.zero_grad()
        losses.backward()
        their_optimizer.step()

    return {"ours": lambda: ours.train_step(batch, our_optimizer), "torchvision": their_step}


def _ours(name: str) -> str:
    if name.startswith("backbone."):
        return name.replace("backbone.fpn.", "neck.")
    return f"head.{name}"


def evaluation_seconds(which: str, images: int) -> dict[str, float]:
    """CPU seconds, of all threads, of an evaluation by each tool, after the files are read; both must say the same.

    The median of three, in turn.
    """
    kind: Any = which.split()[-1]
    truth = json.loads((KNOWN / "instances_val2014_100.json").read_text())
    results = json.loads((KNOWN / f"instances_val2014_fake{kind}100_results.json").read_text())
    known = {image["id"] for image in truth["images"]}
    copies = -(-images // len(known))
    many: dict[str, Any] = {**truth, "images": [], "annotations": []}
    found = []
    for copy in range(copies):
        shift = copy * 10_000_000
        many["images"] += [{**image, "id": image["id"] + shift} for image in truth["images"]]
        many["annotations"] += [{**one, "image_id": one["image_id"] + shift} for one in truth["annotations"]]
        found += [{**one, "image_id": one["image_id"] + shift} for one in results if one["image_id"] in known]
    seconds: dict[str, list[float]] = {"faster_coco_eval": [], "pycocotools": []}
    figures = []
    drawn = with_run_lengths(many)
    for tool in ("faster_coco_eval", "pycocotools") * 3:
        start = time.process_time()
        if tool == "pycocotools" or kind == "bbox":
            known = many
        else:
            known = with_run_lengths(many) if which.startswith("first") else drawn
        figures.append(coco_scores(known, found, kind, tool=tool).figures)  # type: ignore[arg-type]
        seconds[tool].append(time.process_time() - start)
    differ = max(abs(figures[0][name] - figures[1][name]) for name in figures[0])
    assert differ < 1e-9, f"the tools differ by {differ}"
    return {tool: sorted(some)[1] for tool, some in seconds.items()}


def print_report(report: dict[str, Any], args: argparse.Namespace) -> None:
    table = Table(title=f"training, {args.batch} x {args.size[0]}x{args.size[1]}; evaluation, {args.images} images")
    for heading in ("what", "ours", "theirs", "ratio"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    speeds = report["images_per_s"]
    ours, theirs = speeds["ours"], speeds["torchvision"]
    table.add_row("images/s, torchvision's loop", f"{ours:.2f}", f"{theirs:.2f}", f"{ours / theirs:.2f}x")
    for kind, seconds in report["evaluation_s"].items():
        fast, slow = seconds["faster_coco_eval"], seconds["pycocotools"]
        table.add_row(f"CPU seconds, {kind}, pycocotools", f"{fast:.2f}", f"{slow:.2f}", f"{slow / fast:.1f}x")
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar="N", help="height, width (480 640)")
    parser.add_argument("--batch", type=int, default=2, metavar="N", help="images at once (2)")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="images to evaluate (500)")
    parser.add_argument("--repeats", type=int, default=11, metavar="N", help="timed rounds, the median counts (11)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", metavar="NAME")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    return parser.parse_args()


if __name__ == "__main__":
    main()

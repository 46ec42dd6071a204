"""Mask R-CNN learns eight real COCO images by heart: AP50 of boxes and masks on the images that it was trained on.

    python benchmarks/overfit_coco.py --data-root PATH --out DIR [--iterations N] [--scale LONG SHORT]

PATH is a folder with COCO's instances_train.json and images/train. The images are the first eight, by their ids, with
two objects or more, no crowd, and no object of less than 16 x 16 pixels at the size of the input. The model is that
of quickstart/detection with 80 classes: a ResNet-18 of half width with efficient attention, from nothing. A low figure
would mean that boxes, masks or labels do not reach the losses as the metric reads them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mmengine.config import Config

from visionattn.detection.coco import CocoDetection
from visionattn.engine.config import load_config
from visionattn.engine.runner import Runner

IMAGES = 8
LEAST_AREA = 16 * 16


def main() -> None:
    args = parse_args()
    chosen = images_with_large_objects(args.data_root, args.scale)
    config = overfitting_config(args, chosen)
    runner = Runner.from_cfg(config)
    runner.train()
    figures = json.loads((args.out / "evaluation" / "coco.json").read_text())
    found = {kind: figures[kind]["AP50"] for kind in ("bbox", "segm")}
    (args.out / "overfit.json").write_text(json.dumps({"images": chosen, **figures}, indent=1) + "\n")
    print(f"AP50 on the {IMAGES} images trained on: boxes {found['bbox']:.4f}, masks {found['segm']:.4f}")
    if min(found.values()) <= 0.8:
        raise SystemExit("below 0.8: it did not learn them")


def images_with_large_objects(data_root: Path, scale: tuple[int, int]) -> list[int]:
    """Positions in the data set of the first eight images that fit; see above."""
    dataset = CocoDetection(str(data_root), "instances_train.json", "images/train", with_masks=True)
    kept = []
    areas = {image: [one["area"] for one in some] for image, some in dataset.annotations().annotations.items()}
    for index in sorted(range(len(dataset)), key=lambda index: dataset.get_data_info(index)["image_id"]):
        info = dataset.get_data_info(index)
        long, short = max(info["height"], info["width"]), min(info["height"], info["width"])
        reduced = min(max(scale) / long, min(scale) / short) ** 2
        objects = areas[info["image_id"]]
        if len(objects) > 1 and not info["crowd"].any() and min(objects) * reduced >= LEAST_AREA:
            kept.append(index)
        if len(kept) == IMAGES:
            return kept
    raise ValueError(f"{data_root}: only {len(kept)} images have two objects of {LEAST_AREA} pixels at {scale}")


def overfitting_config(args: argparse.Namespace, chosen: list[int]) -> Config:
    """The quickstart's config with these images to learn and to be tested on."""
    resize = {"type": "visionattn.DetectionAugment", "transforms": [{"type": "FittedResize", "scales": [args.scale]}]}
    dataset: dict[str, Any] = {
        "type": "visionattn.CocoDetection",
        "data_root": str(args.data_root),
        "ann_file": "instances_train.json",
        "image_dir": "images/train",
        "with_masks": True,
        "indices": chosen,
        "pipeline": [resize, {"type": "visionattn.PackDetection"}],
    }
    options = {
        "iterations": args.iterations,
        "model.head.num_classes": 80,
        "model.head.rpn.anchor_sizes": (16, 32, 64, 128, 256),
        "train_cfg.max_iters": args.iterations,
        "train_cfg.val_interval": args.iterations,
        "param_scheduler.0.total_steps": args.iterations,
        "default_hooks.checkpoint.interval": args.iterations,
    }
    config = load_config("quickstart/detection", options)
    config.train_dataloader.dataset = dataset
    for part in ("val", "test"):
        config[f"{part}_dataloader"].dataset = {**dataset, "test_mode": True}
    config.work_dir = str(args.out)
    return config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, metavar="PATH")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoint, pictures and figures")
    parser.add_argument("--iterations", type=int, default=600, metavar="N", help="of four images (600)")
    parser.add_argument(
        "--scale", type=int, nargs=2, default=(320, 240), metavar="N", help="long, short side (320 240)"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()

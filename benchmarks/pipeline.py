"""Our training pipelines against mmseg's published ones, on the same files, in one process: images per second.

    python benchmarks/pipeline.py [--quick] [--json FILE]

Ours are those of configs/_base_/datasets/{ade20k,cityscapes}.py, mmseg's those that its package installs. What is timed
is what one loader worker does for a sample: decode, check labels, resize, crop, flip, distort colours, make tensors.
The files are made-up scenes: JPEGs of 480x640, PNGs of 1024x2048, and their masks, about as large as the real ones'.
Both draw new random numbers in every pass; tests/data/ shows that they draw from the same distribution.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import torch
from interleaved import machine, median_ms
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from rich.console import Console
from rich.table import Table

import visionattn.segmentation  # noqa: F401  # first: it keeps mmseg silent
from visionattn.data.scene_drawing import render_scene
from visionattn.data.scenes import SCENE_CLASSES
from visionattn.engine.config import load_config

PUBLISHED = Path(find_spec("mmseg").submodule_search_locations[0]) / ".mim/configs/_base_/datasets"


@dataclass(frozen=True)
class Case:
    """A data set: where its files lie and how large they are."""

    config: str
    size: tuple[int, int]
    image: str
    mask: str
    dataset: dict[str, Any]  # put over our config's
    first_label: int
    blur: float  # of the scenes: their grain is finer than a photograph's, and a PNG keeps all of it


CASES = (
    Case(
        config="ade20k",
        size=(480, 640),
        image="images/training/{:02d}.jpg",
        mask="annotations/training/{:02d}.png",
        dataset={},
        first_label=1,
        blur=0.0,
    ),
    Case(
        config="cityscapes",
        size=(1024, 2048),
        image="leftImg8bit/train/scene/{:02d}_leftImg8bit.png",
        mask="gtFine/train/scene/{:02d}_gtFine_labelTrainIds.png",
        dataset={"type": "visionattn.CityscapesTrainIds"},
        first_label=0,
        blur=0.8,
    ),
)


def main() -> None:
    args = parse_args()
    warnings.simplefilter("ignore")  # mmseg's published config uses an option of mmseg that it calls deprecated
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            root = Path(folder, case.config)
            sizes = write_files(root, case, args.images)
            with DefaultScope.overwrite_default_scope("mmseg"):
                rows.append(measure(case, root, args) | sizes)
            print(summary(rows[-1]), flush=True)
    report = {"machine": machine(torch.device("cpu")), "images": args.images, "repeats": args.repeats, "rows": rows}
    show(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


def write_files(root: Path, case: Case, images: int) -> dict[str, float]:
    """Scenes and masks under `root`; mean kilobytes of an image and of a mask."""
    written: dict[str, list[int]] = {"image_kb": [], "mask_kb": []}
    for number in range(images):
        scene, labels = render_scene(np.random.default_rng(number), case.size)
        if case.blur:
            scene = cv2.GaussianBlur(scene, (0, 0), case.blur)
        if not case.first_label:  # 0 is no class in a scene
            labels = np.where(labels == 0, 255, labels - 1).astype(np.uint8)
        for kind, name, pixels in (("image_kb", case.image, scene[..., ::-1]), ("mask_kb", case.mask, labels)):
            path = root / name.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), pixels):
                raise OSError(f"{path} could not be written; is the disk full?")
            written[kind].append(path.stat().st_size)
    return {kind: mean(sizes) / 1e3 for kind, sizes in written.items()}


def measure(case: Case, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One row: images per second of each pipeline."""
    ours = load_config(f"_base_/datasets/{case.config}.py", {"data_root": str(root)}).train_dataloader.dataset
    theirs = Config.fromfile(PUBLISHED / f"{case.config}.py").train_dataloader.dataset
    theirs.data_root = str(root)
    passes = {
        name: every_sample(DATASETS.build(config))
        for name, config in (("ours", ours | case.dataset), ("mmseg", theirs))
    }
    for run in passes.values():
        check(run(), ours)
    times = median_ms(passes, torch.device("cpu"), repeats=args.repeats, budget_s=args.budget)
    return {
        "config": case.config,
        "size": list(case.size),
        "images_per_s": {name: 1e3 * args.images / spent for name, spent in times.items()},
    }


def every_sample(dataset: Any) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [dataset[index] for index in range(len(dataset))]


def check(samples: list[dict[str, Any]], config: Any) -> None:
    """Refuses to go on unless the samples are what a model is trained on."""
    crop = next(step for step in config.pipeline if "transforms" in step).transforms[0].crop_size
    for sample in samples:
        image, labels = sample["inputs"], sample["data_samples"].gt_sem_seg.data
        fits = image.shape[0] == 3 and image.shape[1:] == labels.shape[1:]
        fits = fits and all(side <= most for side, most in zip(labels.shape[1:], crop, strict=True))
        known = set(labels.unique().tolist()) <= {*range(len(SCENE_CLASSES)), 255}
        if not (fits and known and image.dtype == torch.uint8 and labels.dtype == torch.int64):
            raise SystemExit(f"a sample has image {list(image.shape)}, labels {list(labels.shape)}; nothing timed")


def summary(row: dict[str, Any]) -> str:
    speed = row["images_per_s"]
    size = "x".join(map(str, row["size"]))
    return f"{row['config']} {size}: ours {speed['ours']:.1f} images/s, mmseg {speed['mmseg']:.1f} images/s"


def show(report: dict[str, Any]) -> None:
    table = Table(title="training pipelines, one process, images per second")
    for column in ("data", "size", "image kB", "mask kB", "ours", "mmseg", "ours / mmseg"):
        table.add_column(column, justify="left" if column == "data" else "right", no_wrap=True)
    for row in report["rows"]:
        speed = row["images_per_s"]
        table.add_row(
            row["config"],
            "x".join(map(str, row["size"])),
            f"{row['image_kb']:.0f}",
            f"{row['mask_kb']:.1f}",
            f"{speed['ours']:.1f}",
            f"{speed['mmseg']:.1f}",
            f"{speed['ours'] / speed['mmseg']:.2f}x",
        )
    console = Console(width=None if Console().is_terminal else 120)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in report["machine"].items()), soft_wrap=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images and rounds: does it run at all?")
    parser.add_argument("--images", type=int, default=12, help="files of each kind (default 12)")
    parser.add_argument("--repeats", type=int, default=25, help="rounds, each a pass over all files (default 25)")
    parser.add_argument("--budget", type=float, default=60.0, help="seconds per pipeline and size (default 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure with its machine and commit")
    args = parser.parse_args()
    if args.quick:
        args.images, args.repeats = 3, 3
    return args


if __name__ == "__main__":
    main()

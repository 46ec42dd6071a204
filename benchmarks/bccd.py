"""Short trainings of Faster R-CNN on BCCD from nothing, with efficient attention and without: curves and test figures.

    python benchmarks/bccd.py --data-root PATH --out DIR [CONFIG ...] [--iterations N] [--scale LONG SHORT]

Every network is trained and tested by the commands a user has, with these options over its config: a smaller image,
with anchors to match, fewer proposals, fewer iterations. What is in DIR already is not run again, and a training that
was cut off goes on. DIR/bccd.png has AP50 over iterations, DIR/bccd.json every figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from visionattn.engine.run_record import RunRecord, read_run

NETWORKS = {
    "detection/faster_rcnn_r18-fpn_bccd": "ResNet-18",
    "detection/faster_rcnn_r18-fpn-efficient_bccd": "ResNet-18, efficient attention x 5",
    "detection/faster_rcnn_swin-t-fpn_bccd": "Swin-T",
    "detection/faster_rcnn_swin-t-fpn-efficient_bccd": "Swin-T, efficient attention x 3",
}
PARTS = ("train", "val", "test")


def main() -> None:
    args = parse_args()
    for config in args.configs:
        folder = work_dir(args, config)
        if not (folder / "evaluation" / "coco.json").is_file() or not finished(folder, args.iterations):
            command("train", config, "--work-dir", folder, "--resume", "--cfg-options", *options(args))
        if not (folder / "test" / "evaluation" / "coco.json").is_file():
            checkpoint = folder / f"iter_{args.iterations}.pth"
            command("test", config, checkpoint, "--work-dir", folder / "test", "--cfg-options", *options(args))
    done = {config: figures(work_dir(args, config)) for config in NETWORKS if work_dir(args, config).is_dir()}
    (args.out / "bccd.json").write_text(json.dumps(done, indent=1) + "\n")
    draw(done, args)
    print_table(done)


def options(args: argparse.Namespace) -> list[str]:
    """What these trainings set over the configs, as the commands take it."""
    n, (long, short) = args.iterations, args.scale
    ratio = short / 480
    anchors = tuple(round(size * ratio) for size in (32, 64, 128, 256, 512))
    scales = [f"{part}_dataloader.dataset.pipeline.0.transforms.0.scales=[({long},{short})]" for part in PARTS]
    workers = [f"{part}_dataloader.num_workers=0" for part in PARTS]
    workers += [f"{part}_dataloader.persistent_workers=False" for part in ("train", "val")]
    return [
        f"data_root={args.data_root}",
        *scales,
        *workers,
        "model.head.rpn=" + repr({"anchor_sizes": anchors, "pre_nms": (500, 300), "post_nms": (300, 150)}),
        "model.head.box.samples=128",
        "train_dataloader.batch_size=2",
        "param_scheduler.0.start_factor=0.01",
        f"param_scheduler.0.end={n // 10}",
        f"param_scheduler.1.begin={n // 10}",
        f"param_scheduler.1.end={n}",
        f"train_cfg.max_iters={n}",
        f"train_cfg.val_interval={n // args.evaluations}",
        f"default_hooks.checkpoint.interval={n // args.evaluations}",
        "default_hooks.checkpoint.save_best=None",
        "default_hooks.logger.interval=10",
    ]


def work_dir(args: argparse.Namespace, config: str) -> Path:
    return args.out / config.rpartition("/")[2]


def finished(folder: Path, iterations: int) -> bool:
    return (folder / f"iter_{iterations}.pth").is_file()


def command(name: str, *arguments: object) -> None:
    code = "from visionattn.cli.main import main; raise SystemExit(main())"
    written = [sys.executable, "-c", code, name, *map(str, arguments)]
    print("visionattn", *written[3:], flush=True)
    subprocess.run(written, check=True, env={**os.environ, "COLUMNS": "120"})


def figures(folder: Path) -> dict[str, Any]:
    """Curve, time and parameters of the training; figures of the validation's and the test's images at its end."""
    record = read_run(folder)
    found: dict[str, Any] = {
        "iterations": [line["step"] for line in record.evaluations],
        "val_AP50": [line["coco/bbox_AP50"] for line in record.evaluations],
        "val_AP": [line["coco/bbox_AP"] for line in record.evaluations],
        "seconds_a_step": step_seconds(record),
        "parameters": record.facts.get("parameters"),
    }
    for part, place in (("val", folder), ("test", folder / "test")):
        path = place / "evaluation" / "coco.json"
        if path.is_file():
            found[part] = json.loads(path.read_text())["bbox"]
    return found


def step_seconds(record: RunRecord) -> float | None:
    times = sorted(line["time"] for line in record.train if "time" in line)
    return times[len(times) // 2] if times else None


def draw(done: dict[str, Any], args: argparse.Namespace) -> None:
    """AP50 on the validation images over iterations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    for number, (config, found) in enumerate(done.items()):
        colour = ("#0072b2", "#d55e00")[number // 2]
        style = ("--", "-")[number % 2]
        axes.plot(found["iterations"], found["val_AP50"], style, color=colour, marker="o", ms=4, label=NETWORKS[config])
    axes.set(xlabel="iterations of 2 images", ylabel="AP50, 87 validation images", ylim=(0, 1), xlim=(0, None))
    axes.set_title(f"BCCD, {args.scale[0]}x{args.scale[1]}, from nothing", loc="left", fontsize=11)
    axes.grid(color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(args.out / "bccd.png")
    pyplot.close(figure)


def print_table(done: dict[str, Any]) -> None:
    table = Table(title="BCCD, after the last iteration")
    for heading in ("network", "s/step", "val AP50", "test AP", "test AP50", "AP50 of each class"):
        table.add_column(heading, justify="left" if heading == "network" else "right")
    for config, found in done.items():
        if "test" not in found:
            continue
        test = found["test"]
        classes = ", ".join(f"{one['name']} {one['AP50']:.3f}" for one in test["classes"])
        step = found["seconds_a_step"]
        cells = (f"{step:.2f}", f"{found['val_AP50'][-1]:.3f}", f"{test['AP']:.3f}", f"{test['AP50']:.3f}", classes)
        table.add_row(NETWORKS[config], *cells)
    Console(width=None if Console().is_terminal else 140).print(table)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", default=list(NETWORKS), metavar="CONFIG", help="all four if none")
    parser.add_argument("--data-root", type=Path, default="data/bccd", metavar="PATH", help="of BCCD (data/bccd)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="work dirs, plot and figures")
    parser.add_argument("--iterations", type=int, default=500, metavar="N", help="of two images (500)")
    parser.add_argument("--evaluations", type=int, default=5, metavar="N", help="on the validation images (5)")
    parser.add_argument(
        "--scale", type=int, nargs=2, default=(256, 192), metavar="N", help="long, short side (256 192)"
    )
    args = parser.parse_args()
    for config in args.configs:
        if config not in NETWORKS:
            parser.error(f"{config} is none of {', '.join(NETWORKS)}")
    return args


if __name__ == "__main__":
    main()

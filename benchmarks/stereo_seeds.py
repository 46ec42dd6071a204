"""PSMNet with and without attention under one budget, from nothing, on made-up scenes, several seeds.

    python benchmarks/stereo_seeds.py OUT [--iterations 1200] [--seeds 3] [--networks PSMNet EA-spp ...]

Every network of a seed starts from the same weights, sees the same scenes in the same order and takes the same number
of steps of the same schedule. A cell (a network and a seed) is a file OUT/<network>_<seed>.json: one that is there is
not run again, so a run that was interrupted goes on when it is started again. The table of all cells that are there is
printed, with mean and standard deviation over the seeds, and is OUT/table.md.

The scenes are small ones, so the published feature extractor, which pools over windows of 256 pixels, cannot be used:
its place is taken by a resnet18 of half width with a feature pyramid. Volume, hourglasses and regression are PSMNet's.
The held-out scenes are of another seed than those of every training. Where the six pairs of `stereo_pairs.py` are at
hand, they are evaluated too, at a quarter of their size, for their disparities would be too large otherwise; errors are
in pixels of the whole size.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cv2
import stereo_pairs
import torch
from interleaved import machine
from torch import Tensor, nn

from visionattn.stereo.constant_baseline import best_constant
from visionattn.stereo.errors import error_sums
from visionattn.stereo.losses import WeightedSmoothL1Loss
from visionattn.stereo.made_up import MadeUpStereo
from visionattn.stereo.matcher import StereoMatcher
from visionattn.stereo.packing import PackStereo
from visionattn.stereo.protocols import protocol
from visionattn.stereo.psmnet import PSMNet

NETWORKS: dict[str, dict[str, str]] = {
    "PSMNet": {},
    **{
        f"{short}-{place}": {place: mechanism}
        for place in ("spp", "hourglass", "cost")
        for short, mechanism in (("NL", "NonLocal"), ("EA", "EfficientAttention"))
    },
}
BACKBONE = {
    "type": "TimmBackbone",
    "model_name": "resnet18",
    "out_indices": (1, 2),
    "timm_options": {"channels": (32, 64, 96, 128), "zero_init_last": False},
}
PROTOCOL = protocol("visionattn")
FIGURES = ("EPE", "bad-1", "bad-3", "D1")
SMALLER = 4
"""How many times smaller the six pairs are evaluated."""
HELD_OUT_SEED, FIRST_TRAINING_SEED = 1, 100


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name in args.networks:
            path = args.out / f"{name}_{seed}.json"
            if not path.exists():
                cell = run_cell(name, seed, args)
                path.write_text(json.dumps(cell, indent=1) + "\n")
            elif json.loads(path.read_text())["budget"] != budget(args):
                raise SystemExit(f"{path} is of another budget; give another folder")
    table = "\n".join(table_rows(args.out))
    (args.out / "table.md").write_text(table + "\n")
    print(table)


def budget(args: argparse.Namespace) -> dict[str, Any]:
    names = ("iterations", "batch", "size", "max_disparity", "crowd", "rate", "held_out")
    return {name: getattr(args, name) for name in names}


def run_cell(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains one network from one seed and evaluates it."""
    model = build(name, seed, args.max_disparity)
    truths = samples(HELD_OUT_SEED, args.held_out, *args.size, args.max_disparity, args.crowd)
    pairs = samples(
        FIRST_TRAINING_SEED + seed, args.iterations * args.batch, *args.size, args.max_disparity, args.crowd
    )
    began = time.process_time()
    losses = train(model, pairs, args)
    seconds = time.process_time() - began
    known = [(pair["data_samples"].disparity, pair["data_samples"].valid) for pair in truths]
    constant, constant_epe = best_constant(known, PROTOCOL)
    cell = {
        "network": name,
        "seed": seed,
        "budget": budget(args),
        "machine": machine(torch.device("cpu")),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds_per_step": seconds / args.iterations,
        "figures": evaluate(model, truths),
        "pairs": evaluate_pairs(model),
        "best_constant": {"disparity": constant, "EPE": constant_epe},
        "losses": losses,
    }
    print(f"{name} seed {seed}: EPE {cell['figures']['EPE']:.3f}, {seconds:.0f} s", flush=True)
    return cell


def build(name: str, seed: int, max_disparity: int) -> StereoMatcher:
    """The network; all that two of one seed share starts equal, for attention is made last and starts as nothing."""
    torch.manual_seed(seed)
    network = PSMNet(max_disparity, backbone=BACKBONE, attention=NETWORKS[name])
    return StereoMatcher(network, WeightedSmoothL1Loss((0.5, 0.7, 1.0), max_disparity))


@cache
def samples(seed: int, scenes: int, height: int, width: int, max_disparity: int, crowd: float) -> list[dict[str, Any]]:
    """Packed pairs; those of the last seed are kept, for the next network."""
    made_up = MadeUpStereo(
        scenes,
        seed,
        height,
        width,
        float(max_disparity),
        image_pass="cleanpass",
        crowd=crowd,
        transforms=[PackStereo()],
    )
    return [made_up[index] for index in range(scenes)]


def train(model: StereoMatcher, pairs: list[dict[str, Any]], args: argparse.Namespace) -> list[float]:
    """The loss, mean over each tenth of the training."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.rate, args.iterations, pct_start=0.1)
    model.train()
    losses = []
    for step in range(args.iterations):
        batch = pairs[step * args.batch : (step + 1) * args.batch]
        optimizer.zero_grad(set_to_none=True)
        loss = model.loss(*collated(model, batch))["loss_disparity"]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    tenth = max(args.iterations // 10, 1)
    return [mean(losses[start : start + tenth]) for start in range(0, args.iterations, tenth)]


def evaluate(model: StereoMatcher, pairs: list[dict[str, Any]]) -> dict[str, float]:
    model.eval()
    sums = []
    with torch.inference_mode():
        for pair in pairs:
            (found,) = model.predict(*collated(model, [pair]))
            sums.append(
                error_sums(
                    found.predicted, found.disparity, PROTOCOL.counted(found.disparity, found.valid), found.valid
                )
            )
    reduced = PROTOCOL.reduce(torch.stack(sums))
    return {figure: reduced[figure] for figure in FIGURES}


def evaluate_pairs(model: StereoMatcher) -> dict[str, float]:
    """The EPE of each of the six pairs, and their mean; empty where they are not at hand."""
    found: dict[str, float] = {}
    if not stereo_pairs.DATA.is_dir():
        return found
    for title, pair in stereo_pairs.PAIRS.items():
        truth = pair.truth()
        height, width = truth.disparity.shape
        size = (width // SMALLER, height // SMALLER)
        left, right = (cv2.resize(view, size, interpolation=cv2.INTER_AREA) for view in pair.images())
        packed = PackStereo()({"left": left, "right": right})
        with torch.inference_mode():
            (sample,) = model.predict(*collated(model, [packed]))
        disparity = cv2.resize(sample.predicted.numpy(), (width, height)) * (width / size[0])
        found[title] = stereo_pairs.figures(disparity, truth)["EPE"]
    return {**found, "mean": mean(found.values())}


def collated(model: StereoMatcher, batch: list[dict[str, Any]]) -> tuple[dict[str, Tensor], list[Any]]:
    views = {view: [pair["inputs"][view] for pair in batch] for view in ("left", "right")}
    data = model.data_preprocessor({"inputs": views, "data_samples": [pair["data_samples"] for pair in batch]})
    return data["inputs"], data["data_samples"]


def table_rows(out: Path) -> list[str]:
    """A line for each network that has a cell, and one for the best constant disparity."""
    rows = [
        "| network | seeds | EPE, px | of each seed | bad-3, % | D1, % | EPE of six pairs | s a step |",
        "|---|---|---|---|---|---|---|---|",
    ]
    constant = None
    for name in NETWORKS:
        cells = [json.loads(path.read_text()) for path in sorted(out.glob(f"{name}_[0-9]*.json"))]
        if not cells:
            continue
        of_figure = {figure: [cell["figures"][figure] for cell in cells] for figure in FIGURES}
        each = ", ".join(f"{value:.2f}" for value in of_figure["EPE"])
        step = mean(cell["seconds_per_step"] for cell in cells)
        figures = (
            with_deviation(of_figure["EPE"], 2),
            each,
            with_deviation(of_figure["bad-3"], 1),
            with_deviation(of_figure["D1"], 1),
            with_deviation([cell["pairs"]["mean"] for cell in cells], 1) if all(c["pairs"] for c in cells) else "",
        )
        rows.append(f"| {name} | {len(cells)} | {' | '.join(figures)} | {step:.2f} |")
        constant = cells[0]["best_constant"]
    if constant:
        rows.append(f"| best constant disparity, {constant['disparity']:.2f} px | | {constant['EPE']:.2f} | | | | | |")
    return rows


def with_deviation(values: list[float], digits: int) -> str:
    """Mean and sample standard deviation."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the cells")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3, help="0 to this number less one (default 3)")
    parser.add_argument("--iterations", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=[64, 128], metavar=("H", "W"))
    parser.add_argument("--max-disparity", type=int, default=32)
    parser.add_argument("--crowd", type=float, default=0.25, help="things in a scene, share of the usual number")
    parser.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--held-out", type=int, default=100, help="scenes of the evaluation")
    return parser.parse_args()


if __name__ == "__main__":
    main()

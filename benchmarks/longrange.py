"""Trains every mechanism on the long-range tasks under one budget; writes docs/longrange.json, its table and its plot.

    python benchmarks/longrange.py [--seeds 0 1 2] [--tasks pathfinder majority] [--only TEXT] [--minutes N]

A cell is a task, a mechanism and a seed: `visionattn train longrange/TASK` with this mechanism as its only attention,
and what its last evaluation says. Cells that the JSON has are left, so that the table can be filled over days; the
first seed of all mechanisms comes before the second of any. --table writes table and plot from the JSON alone.

Every mechanism has its own defaults, but 4 heads where they are 8 (of 32 channels), and 24 x 24 as its grid. "none" is
the network without attention. Seconds are the processor's, of the whole command. The two bounds are no networks: they
know everything that lies within a distance, say where they know nothing what is most often right, and are drawn
exactly; no network that sees no farther can be expected to score more.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- table: benchmarks/longrange.py -->", "<!-- end of table -->"
TASKS = ("pathfinder", "majority")
NONE = "none"
GRID = (24, 24)
PLACE = "model.backbone.attention.1.attention"
_ABOVE, _BELOW = "#0b6bb5", "#c04a08"


def main() -> None:
    args = parse_args()
    if not args.table:
        begun = time.monotonic()
        for seed in args.seeds:
            for mechanism in mechanisms(args.only):
                for task in args.tasks:
                    name = cell_name(task, mechanism, seed)
                    if name in read_json(args.json)["cells"]:
                        continue
                    if args.minutes is not None and time.monotonic() - begun > 60 * args.minutes:
                        print("time is up; the same command goes on")
                        return
                    cell = trained(task, mechanism, seed, args)
                    results = read_json(args.json)  # again: another process may have filled other cells meanwhile
                    results["cells"][name] = cell
                    write_json(args.json, results)
                    print(f"{name:50} {cell['mIoU']:6.2f} %  {cell['seconds']:.0f} s", flush=True)
    results = read_json(args.json)
    results["bounds"] = {task: bounds(task) for task in TASKS}
    write_json(args.json, results)
    write_page(results)
    write_pictures(DOCS / "longrange_pictures.jpg")


def mechanisms(only: str | None) -> list[str]:
    """Those of the registry behind the network without any, whose names have this in them."""
    from visionattn import list_attention

    return [name for name in (NONE, *list_attention()) if only is None or only in name]


def cell_name(task: str, mechanism: str, seed: int) -> str:
    return f"{task} | {mechanism} | {seed}"


def trained(task: str, mechanism: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Trains a cell and returns its figures."""
    from visionattn.analysis.machine import checkout_commit, cpu_name
    from visionattn.engine.run_record import read_run

    work_dir = args.work_dir / task / mechanism / str(seed)
    options = [f"{PLACE}={attention(mechanism)}"] if mechanism != NONE else ["model.backbone.attention=None"]
    if args.iterations:
        options += [f"{key}={args.iterations}" for key in ("train_cfg.max_iters", "train_cfg.val_interval")]
        options += [f"param_scheduler.0.total_steps={args.iterations}"]
        options += [f"default_hooks.checkpoint.interval={args.iterations}"]
    command = [sys.executable, "-m", "visionattn.cli.main", "train", f"longrange/{task}"]
    command += ["--work-dir", str(work_dir), "--seed", str(seed), "--cfg-options", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = read_run(work_dir)
    classes = {row["name"]: round(row["IoU"], 3) for row in record.classes["classes"]}
    return {
        "mIoU": round(record.evaluations[-1]["mIoU"], 3),
        "IoU": classes,
        "seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "iterations": record.facts["iterations"],
        "parameters": record.facts["parameters"],
        "cpu": cpu_name(),
        "torch": record.facts["environment"]["torch"],
        "commit": checkout_commit(),
    }


def attention(mechanism: str) -> dict[str, Any]:
    """The config of a mechanism in the host network."""
    from visionattn.attention.build import attention_class

    config: dict[str, Any] = {"type": mechanism, "grid": GRID}
    heads = inspect.signature(attention_class(mechanism)).parameters.get("num_heads")
    if heads is not None and heads.default == 8:
        config["num_heads"] = 4
    return config


def read_json(path: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    results.setdefault("cells", {})
    return results


def write_json(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(results, indent=1) + "\n")
    beside.replace(path)


def bounds(task: str) -> dict[str, Any]:
    """What may be known without looking farther than the network does around its attention."""
    distance = receptive_distance()
    return {"distance": distance, "mIoU": round(best_local_miou(task, distance), 3)}


def receptive_distance() -> int:
    """How far from a pixel, in pixels, the network without attention looks: where the picture has a gradient."""
    import torch
    from mmengine.registry import DefaultScope

    from visionattn.engine.config import import_scope, load_config
    from visionattn.registry import MODELS

    config = load_config("longrange/pathfinder", {"model.backbone.attention": None})
    import_scope(config)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(config.model).double().eval()
    farthest, side = 0, 96
    for middle in range(side // 2, side // 2 + 4):  # the network's grid is four pixels wide
        picture = torch.randn(16, 3, side, side, dtype=torch.float64, requires_grad=True)
        logits = torch.nn.functional.interpolate(model(picture), (side, side), mode="bilinear")
        (gradient,) = torch.autograd.grad(logits[..., middle, middle].square().sum(), picture)
        rows = (gradient.abs().amax(dim=(0, 1, 3)) > 0).nonzero()
        farthest = max(farthest, middle - int(rows.min()), int(rows.max()) - middle)
    return farthest


def best_local_miou(task: str, distance: int) -> float:
    """mIoU in percent, over the validation pictures, of who knows all that lies within the distance."""
    import numpy as np

    from visionattn.data import majority_pictures, pathfinder_pictures
    from visionattn.data.longrange_folder import picture_generator
    from visionattn.segmentation.confusion import ClassScores

    # Where nothing decides, mIoU is not always best served by one answer: the best of all is taken.
    guesses = ((1, 1), (2, 1), (2, 2))
    confusions = np.zeros((len(guesses), 3, 3), np.int64)
    for index in range(200):
        rng = picture_generator(0, "validation", index)
        if task == "pathfinder":
            curves = pathfinder_pictures.compose_pathfinder(rng)
            _, truth = pathfinder_pictures.draw_pathfinder(curves)
            answers = [
                pathfinder_pictures.best_local_answer(curves, truth, distance, one_dot, unknown)
                for one_dot, unknown in guesses
            ]
        else:
            votes = majority_pictures.compose_majority(rng)
            _, truth = majority_pictures.draw_majority(votes)
            lead = majority_pictures.local_lead(votes, distance)
            by_lead = [np.where(lead == 0, tie, np.where(lead > 0, 1, 2)) for _, tie in guesses]
            answers = [np.where(truth == 0, 0, answer) for answer in by_lead]
        for confusion, answer in zip(confusions, answers, strict=True):
            counted = truth != 255
            np.add.at(confusion, (truth[counted], answer[counted]), 1)
    return max(ClassScores.of(confusion).means()["mIoU"] for confusion in confusions)


def write_pictures(path: Path, number: int = 6) -> None:
    """The first validation pictures of both tasks over their labels; white is not evaluated."""
    import numpy as np
    from PIL import Image

    from visionattn.data import majority_pictures, pathfinder_pictures
    from visionattn.data.longrange_folder import picture_generator

    rows = []
    for compose, draw_scene, palette in (
        (
            pathfinder_pictures.compose_pathfinder,
            pathfinder_pictures.draw_pathfinder,
            pathfinder_pictures.PATHFINDER_PALETTE,
        ),
        (majority_pictures.compose_majority, majority_pictures.draw_majority, majority_pictures.MAJORITY_PALETTE),
    ):
        drawn = [draw_scene(compose(picture_generator(0, "validation", index))) for index in range(number)]
        colours = np.full((256, 3), 255, np.uint8)
        colours[:3] = palette
        for row in ([image for image, _ in drawn], [colours[labels] for _, labels in drawn]):
            tiles = [np.pad(tile, ((2, 2), (2, 2), (0, 0)), constant_values=255) for tile in row]
            rows.append(np.concatenate(tiles, axis=1))
    page = np.concatenate(rows)
    larger = Image.fromarray(page).resize((3 * page.shape[1] // 2, 3 * page.shape[0] // 2), Image.Resampling.BICUBIC)
    larger.save(path, quality=78, optimize=True)


def write_page(results: dict[str, Any]) -> None:
    """The table in docs/longrange.md and docs/longrange.svg."""
    page = DOCS / "longrange.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{rest.partition(END)[2]}")
    if results["cells"]:
        draw(results, DOCS / "longrange.svg")


def scores(results: dict[str, Any]) -> dict[str, dict[str, list[float]]]:
    """mechanism -> task -> the mIoU of its seeds; best first by the mean over the tasks, with none of a task as 0."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: {task: [] for task in TASKS})
    for name, cell in results["cells"].items():
        task, mechanism, _ = name.split(" | ")
        found[mechanism][task].append(cell["mIoU"])
    return dict(sorted(found.items(), key=lambda item: -sum(mean(values or [0]) for values in item[1].values())))


def table(results: dict[str, Any]) -> str:
    """The Markdown table, and under it what was measured where."""
    cells = results["cells"]
    lines = [
        "| attention | pathfinder, mIoU % | majority, mIoU % | parameters | CPU seconds |",
        "|---|--:|--:|--:|--:|",
    ]
    for mechanism, found in scores(results).items():
        own = [cell for name, cell in cells.items() if name.split(" | ")[1] == mechanism]
        shown = "none (the network alone)" if mechanism == NONE else f"`{mechanism}`"
        figures = " | ".join(spread(found[task]) for task in TASKS)
        seconds = mean(cell["seconds"] for cell in own)
        lines.append(f"| {shown} | {figures} | {own[0]['parameters']:,} | {seconds:.0f} |")
    local = " | ".join(f"{results['bounds'][task]['mIoU']:.1f}" for task in TASKS)
    lines.append(f"| *no farther than {results['bounds'][TASKS[0]]['distance']} pixels, at best* | {local} | | |")
    facts = sorted({f"{cell['cpu']}, one thread, torch {cell['torch']}" for cell in cells.values()})
    commits = sorted({cell["commit"] for cell in cells.values()})
    if not cells:
        return "\n".join([*lines, "", "No cell has been trained yet."])
    steps = sorted({f"{cell['iterations']:,} ({name.split(' | ')[0]})" for name, cell in cells.items()})
    about = f"{len(cells)} cells of {' or '.join(steps)} iterations; {'; '.join(facts)}; commits {', '.join(commits)}."
    return "\n".join([*lines, "", about])


def spread(values: list[float]) -> str:
    """mean ± standard deviation (number of seeds)."""
    if not values:
        return "not run"
    if len(values) == 1:
        return f"{values[0]:.1f} (1 seed)"
    return f"{mean(values):.1f} ± {stdev(values):.1f} ({len(values)} seeds)"


def draw(results: dict[str, Any], path: Path) -> None:
    """A dot for each seed, a line for the mean, in blue above the bound of a network that sees no farther."""
    import matplotlib
    from matplotlib.figure import Figure

    found = scores(results)
    names = list(found)[::-1]
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "longrange", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8.2, 1.1 + 0.2 * len(names)), layout="constrained")
        for axes, task in zip(figure.subplots(1, 2, sharey=True), TASKS, strict=True):
            bound = results["bounds"][task]["mIoU"]
            rows = [(y, found[name][task]) for y, name in enumerate(names) if found[name][task]]
            axes.axvline(bound, color=_BELOW, linestyle="--", linewidth=1)
            for above, colour in ((True, _ABOVE), (False, _BELOW)):
                own = [(y, values) for y, values in rows if (mean(values) > bound) is above]
                dots = [(value, y) for y, values in own for value in values]
                axes.plot(
                    [value for value, _ in dots], [y for _, y in dots], "o", color=colour, markersize=4, alpha=0.6
                )
                low, high = ([y + side for y, _ in own] for side in (-0.36, 0.36))
                axes.vlines([mean(values) for _, values in own], low, high, color=colour, linewidth=2)
            axes.set_title(f"{task}\n(dashed: by what lies near, {bound:.1f} % at best)", fontsize=9)
            axes.set_yticks(range(len(names)), ["none (the network alone)" if n == NONE else n for n in names])
            axes.set_ylim(-0.8, len(names) - 0.2)
            axes.set_xlabel("mIoU, %")
            lowest = min([bound, *(value for _, values in rows for value in values)])
            axes.set_xlim(math.floor(lowest / 5) * 5 - 2, 101)
            axes.tick_params(top=True, labeltop=True, length=2)
            axes.grid(axis="both", linewidth=0.4, color="#d9dde4")
            axes.set_axisbelow(True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--only", metavar="TEXT", help="mechanisms with this in their names")
    parser.add_argument("--iterations", type=int, metavar="N", help="another budget than the configs', for a look")
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no cell after so many")
    parser.add_argument("--json", type=Path, default=DOCS / "longrange.json")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/longrange"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()

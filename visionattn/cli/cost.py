"""`visionattn cost`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from visionattn.cli.options import add_cfg_options

if TYPE_CHECKING:
    from visionattn.analysis.cost import Cost


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a config's path or name (quickstart/segmentation), or a backbone's (resnet18)"
    )
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(3, 512, 512), metavar="N", help="channels, height, width (3 512 512)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; the accelerator if there is one")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU; torch's default if not given")
    parser.add_argument("--repeats", type=int, default=11, metavar="N", help="timed runs, the median counts (11)")
    parser.add_argument("--inference-only", action="store_true", help="leave out forward and backward in training mode")
    parser.add_argument("--json", metavar="FILE", help="write every figure to this file")
    add_cfg_options(parser)


def run(args: Namespace) -> int:
    import torch

    from visionattn.analysis.cost import measure_cost
    from visionattn.cli.cost_table import print_cost
    from visionattn.cli.models import device_from, model_from
    from visionattn.cli.options import quick_collections

    _check(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = device_from(args.device)
    with quick_collections():
        model = model_from(args.config, args.cfg_options).to(device)
        x = torch.randn(args.batch, *args.shape, device=device)
        try:
            cost = measure_cost(model, x, training=not args.inference_only, repeats=args.repeats)
        except (RuntimeError, AssertionError, TypeError, ValueError) as error:
            shape = " ".join(map(str, args.shape))
            raise ValueError(f"{args.config} does not run with --shape {shape}: {error}") from error
    name = f"{args.config}, {type(model).__name__}"
    if args.json:
        _write(Path(args.json), args.config, cost)
    print_cost(name, cost)
    return 0


def _check(args: Namespace) -> None:
    numbers = {"--batch": args.batch, "--repeats": args.repeats, "--threads": args.threads}
    numbers |= dict(zip(("--shape's channels", "--shape's height", "--shape's width"), args.shape, strict=True))
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} {number}: expected 1 or more")


def _write(path: Path, name: str, cost: Cost) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"config": name, **cost.as_dict()}, indent=1) + "\n")

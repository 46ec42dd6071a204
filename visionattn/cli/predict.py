"""`visionattn predict`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from visionattn.cli.options import add_cfg_options


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="files, folders or quoted patterns")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the pictures go, one PNG an image")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; the accelerator if there is one")
    add_cfg_options(parser)


def run(args: Namespace) -> int:
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.inference import Predictor, expand_inputs
    from visionattn.segmentation.pictures import write_panel

    files = [Path(str(file)) for file in expand_inputs(args.images)]
    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    with named_in(config, options):
        predictor = Predictor(config, args.checkpoint, args.device)
    taken: set[Path] = set()
    for file in files:
        path = _free(Path(args.out) / f"{file.stem}.png", taken)
        write_panel(predictor(file), predictor.classes, predictor.palette, path)
        print(path)
    return 0


def _free(path: Path, taken: set[Path]) -> Path:
    """`path`, or with a number where two images of a run have one name."""
    free, number = path, 1
    while free in taken:
        number += 1
        free = path.with_stem(f"{path.stem}_{number}")
    taken.add(free)
    return free

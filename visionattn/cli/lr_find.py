"""`visionattn lr-find`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from visionattn.cli.options import add_config_argument

_COARSE = 50  # steps of a sweep below which the slope is mostly noise


def add_arguments(parser: ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--out", metavar="DIR", help="lr_find.png and lr_find.json; if not given, work_dirs/NAME")
    parser.add_argument("--lowest", type=float, default=1e-7, metavar="LR", help="where the sweep begins (1e-7)")
    parser.add_argument("--highest", type=float, default=1.0, metavar="LR", help="where it ends (1)")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="training steps on the way (100)")


def run(args: Namespace) -> int:
    from visionattn.cli.options import config_from, quick_collections
    from visionattn.engine.config import parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.lr_finder import find_lr, suggested_options, write_sweep
    from visionattn.engine.preflight import check_config

    config = config_from(args)
    with quick_collections(), named_in(config, parse_options(args.cfg_options)):
        check_config(config, parts=("train",))
        sweep = find_lr(config, lowest=args.lowest, highest=args.highest, steps=args.steps)
    if sweep.stopped:
        print(f"ended after {len(sweep.losses)} of {args.steps} steps: {sweep.stopped}")
    if not sweep.losses:
        print("no step had a finite loss: nothing to suggest")
        return 1
    for path in write_sweep(sweep, args.out or config.work_dir, Path(config.filename).stem):
        print(path)
    if sweep.suggestion is None:
        print("the loss did not fall: no suggestion")
        return 1
    if len(sweep.losses) < _COARSE:
        print(
            f"{len(sweep.losses)} steps tell little: take the suggestion for its order of magnitude, or raise --steps"
        )
    print(f"suggestion: --cfg-options {' '.join(suggested_options(config, sweep.suggestion))}")
    return 0

"""`visionattn train`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from visionattn.cli.options import add_config_options


def add_arguments(parser: ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument(
        "--resume", nargs="?", const="auto", metavar="PATH", help="take up the run in the work dir, or a checkpoint's"
    )
    parser.add_argument("--load-from", metavar="PATH", help="begin with a checkpoint's weights")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of python, numpy and torch")


def run(args: Namespace) -> int:
    from visionattn.cli.options import config_from, quick_collections, show_results
    from visionattn.engine.checkpoint import latest_checkpoint
    from visionattn.engine.preflight import check_config
    from visionattn.engine.runner import Runner

    config = config_from(args)
    if args.resume is not None and args.load_from is not None:
        raise ValueError("--resume takes up a run and --load-from begins one: give one of them")
    if args.resume == "auto":
        config.load_from = latest_checkpoint(config.work_dir)
        config.resume = config.load_from is not None
        if not config.resume:
            print(f"nothing to resume in {config.work_dir}: beginning")
    elif args.resume is not None:
        config.load_from, config.resume = args.resume, True
    elif args.load_from is not None:
        config.load_from, config.resume = args.load_from, False
    if args.seed is not None:
        config.randomness = {**config.get("randomness", {}), "seed": args.seed}
    with quick_collections():
        check_config(config, parts=("train", "val"))
        runner = Runner.from_cfg(config)
        runner.train()
    show_results(runner)
    return 0

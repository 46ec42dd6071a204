"""`visionattn train`."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from visionattn.cli.options import add_config_options, add_launcher, add_skip_bad

if TYPE_CHECKING:
    from mmengine.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|PATH",
        help="take up the run in the work dir, or a checkpoint's",
    )
    add_skip_bad(parser)
    parser.add_argument("--load-from", metavar="PATH", help="begin with a checkpoint's weights")
    parser.add_argument("--amp", action="store_true", help="forward pass in bfloat16, on a CPU too")
    parser.add_argument("--compile", action="store_true", help="torch.compile backbone, neck and heads")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of python, numpy and torch")
    parser.add_argument("--deterministic", action="store_true", help="refuse operations whose result may vary")
    add_launcher(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="check the data, train two steps, say what they cost; write nothing"
    )


def run(args: Namespace) -> int:
    from mmengine.dist import barrier, is_main_process

    from visionattn.cli.options import config_from, quick_collections, show_results
    from visionattn.engine.config import parse_options
    from visionattn.engine.config_check import refuse_unknown
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.launch import join_processes, leave_processes
    from visionattn.engine.preflight import check_config
    from visionattn.engine.runner import Runner
    from visionattn.engine.skip_bad import skip_bad_samples
    from visionattn.engine.watch import in_company

    if args.dry_run and args.launcher != "none":
        raise ValueError("--dry-run looks at one process: leave --launcher out")
    config = config_from(args)
    options = parse_options(args.cfg_options)
    with in_company(), quick_collections(), named_in(config, options):
        join_processes(args.launcher, **config.get("env_cfg", {}).get("dist_cfg", {}))
        _take_over(args, config)
        if args.skip_bad:
            skip_bad_samples(config, parts=("train", "val"))
        if is_main_process():
            refuse_unknown(config, options)
            check_config(config, parts=("train", "val"))
        barrier()  # where the first process writes made-up data or finds something wrong, the others wait
        if args.dry_run:
            from visionattn.engine.dry_run import dry_run

            print("\n".join(dry_run(config)))
            return 0
        runner = Runner.from_cfg(config)
        runner.train()
        if is_main_process():
            show_results(runner)
        leave_processes()
    return 0


def _take_over(args: Namespace, config: Config) -> None:
    """Puts the command's options into the config."""
    from mmengine.dist import is_main_process

    from visionattn.engine.checkpoint import latest_checkpoint

    config.launcher = args.launcher
    if args.resume is not None and args.load_from is not None:
        raise ValueError("--resume takes up a run and --load-from begins one: give one of them")
    if args.resume == "auto":
        config.load_from = latest_checkpoint(config.work_dir)
        config.resume = config.load_from is not None
        if not config.resume and is_main_process():
            print(f"nothing to resume in {config.work_dir}: beginning")
    elif args.resume is not None:
        config.load_from, config.resume = args.resume, True
    elif args.load_from is not None:
        config.load_from, config.resume = args.load_from, False
    if args.amp:
        _mixed_precision(config)
    if args.compile:
        config.custom_hooks = [*(config.get("custom_hooks") or ()), {"type": "visionattn.CompileHook"}]
    if args.seed is not None:
        config.randomness = {**config.get("randomness", {}), "seed": args.seed}
    if args.deterministic:
        config.randomness = {**config.get("randomness", {}), "deterministic": True}
        config.env_cfg = {**config.get("env_cfg", {}), "cudnn_benchmark": False}
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS varies without it


def _mixed_precision(config: Config) -> None:
    kind = (config.get("optim_wrapper") or {}).get("type", "OptimWrapper")
    name = kind.rpartition(".")[2]
    if name in ("OptimWrapper", "SAMOptimWrapper"):
        config.optim_wrapper.type = f"visionattn.{name.replace('Optim', 'AmpOptim')}"
    elif "Amp" not in kind:
        raise ValueError(f"--amp takes OptimWrapper's place, but the config has optim_wrapper.type={kind!r}")

"""`visionattn test`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from visionattn.cli.options import add_config_options, add_launcher, add_skip_bad
from visionattn.cli.test_submission import add_submission_arguments

if TYPE_CHECKING:
    from mmengine.config import Config


def add_arguments(parser: ArgumentParser) -> None:
    add_config_options(parser)
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    add_skip_bad(parser)
    parser.add_argument("--tta", action="store_true", help="average over sizes and mirror images (six sizes: 12 times)")
    parser.add_argument("--out", metavar="DIR", help="write input | truth | prediction | error of every image here")
    add_submission_arguments(parser)
    add_launcher(parser)


def run(args: Namespace) -> int:
    from mmengine.dist import barrier, is_main_process

    from visionattn.cli.options import config_from, quick_collections, show_results
    from visionattn.engine.config import parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.launch import join_processes, leave_processes
    from visionattn.engine.preflight import check_config
    from visionattn.engine.runner import Runner
    from visionattn.engine.skip_bad import skip_bad_samples
    from visionattn.engine.watch import in_company

    config = config_from(args)
    config.load_from, config.resume, config.launcher = args.checkpoint, False, args.launcher
    if not config.get("test_dataloader"):
        raise ValueError(f"{config.filename} has no test_dataloader: there is nothing to test on")
    if args.tta:
        config = _augmented(config)
    if args.out:
        config.custom_hooks = [
            *(config.get("custom_hooks") or ()),
            {"type": "visionattn.TestPicturesHook", "out": args.out},
        ]
    if args.submission:
        from visionattn.cli.test_submission import submitting

        config = submitting(config, args.submission, args.method)
    with in_company(), quick_collections(), named_in(config, parse_options(args.cfg_options)):
        join_processes(args.launcher, **config.get("env_cfg", {}).get("dist_cfg", {}))
        if args.skip_bad:
            skip_bad_samples(config, parts=("test",))
        if is_main_process():
            check_config(config, parts=("test",))
        barrier()
        runner = Runner.from_cfg(config)
        runner.test()
        if is_main_process():
            show_results(runner, args.out)
        leave_processes()
    return 0


def _augmented(config: Config) -> Config:
    """The config with its own, or the default, test-time augmentation."""
    if config.get("default_scope") != "mmseg":
        raise ValueError(f"--tta is for segmentation (default_scope mmseg), {config.filename} is not such a config")
    from visionattn.segmentation.tta import with_tta

    return with_tta(config)

"""`visionattn test`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from visionattn.cli.options import add_config_options, add_skip_bad
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


def run(args: Namespace) -> int:
    from visionattn.cli.options import config_from, quick_collections, show_results
    from visionattn.engine.config import parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.preflight import check_config
    from visionattn.engine.runner import Runner
    from visionattn.engine.skip_bad import skip_bad_samples

    config = config_from(args)
    config.load_from, config.resume = args.checkpoint, False
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
    with quick_collections(), named_in(config, parse_options(args.cfg_options)):
        if args.skip_bad:
            skip_bad_samples(config, parts=("test",))
        check_config(config, parts=("test",))
        runner = Runner.from_cfg(config)
        runner.test()
    show_results(runner, args.out)
    return 0


def _augmented(config: Config) -> Config:
    """The config with its own, or the default, test-time augmentation."""
    if config.get("default_scope") != "mmseg":
        raise ValueError(f"--tta is for segmentation (default_scope mmseg), {config.filename} is not such a config")
    from visionattn.segmentation.tta import with_tta

    return with_tta(config)

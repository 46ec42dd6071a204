"""What the commands that run a config share."""

from __future__ import annotations

import gc
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner


def add_config_options(parser: ArgumentParser) -> None:
    add_config_argument(parser)
    parser.add_argument("--work-dir", metavar="DIR", help="logs and checkpoints; if not given, work_dirs/NAME")


def add_config_argument(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    add_cfg_options(parser)


def add_skip_bad(parser: ArgumentParser) -> None:
    parser.add_argument("--skip-bad", action="store_true", help="read all files first and leave out what is broken")


def add_launcher(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        default="none",
        help="what started this process and its like: torchrun, or srun",
    )


def add_cfg_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--cfg-options", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="values over the config's"
    )


def add_allow(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="PATTERN", help="quoted names, as 'head.*', that may be left out"
    )


def config_from(args: Namespace) -> Config:
    """The config that the command names, with its options and a work dir."""
    from visionattn.engine.config import load_config, parse_options

    config = load_config(args.config, parse_options(args.cfg_options))
    name = Path(config.filename).stem
    config.work_dir = getattr(args, "work_dir", None) or config.get("work_dir") or str(Path("work_dirs") / name)
    return config


@contextmanager
def quick_collections() -> Iterator[None]:
    """mmengine collects garbage at every dataset that it builds; here not among all that torch and mmseg consist of."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def show_results(runner: Runner, pictures: str | Path | None = None) -> None:
    """Prints where a finished run's report, checkpoints and pictures are.

    Args:
        pictures: a folder with more of them than the work dir's.
    """
    from visionattn.engine.checkpoint import saved_checkpoints

    work_dir = Path(runner.work_dir)
    shown = work_dir.relative_to(Path.cwd()) if work_dir.is_relative_to(Path.cwd()) else work_dir
    if (work_dir / "report.html").is_file():
        print(f"report       {shown / 'report.html'}")
    checkpoints = sorted(saved_checkpoints(work_dir), key=lambda path: path.stat().st_mtime)
    if checkpoints:
        print(f"checkpoints  {shown}: {', '.join(path.name for path in checkpoints)}")
    for folder in (shown / "pictures", *([Path(pictures)] if pictures else [])):
        number = len(list(folder.glob("*.png")))
        if number:
            print(f"pictures     {folder}: {number} files")

"""`visionattn COMMAND ...`: finds the command's module, runs it, and answers a user's mistake in one line.

A command is a module of this package with `add_arguments(parser)` and `run(args)`. Only the chosen one is imported, and
what it works with only in `run`: help costs no torch.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from visionattn.version import __version__

COMMANDS = {
    "train": "train a model from a config",
    "lr-find": "sweep the learning rate and suggest one",
    "test": "evaluate a checkpoint",
    "predict": "run a checkpoint on images",
    "report": "write the HTML report of a run",
    "data": "check, look at and make data sets",
    "config": "show, check, compare and explain configs",
    "cost": "multiplications, memory and time of a model, by stage and block",
    "export": "write a model for timm",
    "convert": "write weights under another code base's names",
    "attention": "list, measure and compare the attention mechanisms",
    "benchmark": "measure the kernels and exact forms beside their peers",
    "doctor": "show versions and devices, name what does not fit together",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"visionattn: error: {message}; see `{self.prog} --help`\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the command and its arguments; the process's own if None.
    Returns:
        The process's exit code: 0, 1 where a check failed, 2 for a user's mistake.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="visionattn", description="Any attention, in any backbone, for any dense task.")
    parser.add_argument("--version", action="version", version=f"visionattn {__version__}")
    parser.set_defaults(debug=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if argv[:1] == [name]:
            module = import_module(f"visionattn.cli.{name.replace('-', '_')}")
            module.add_arguments(command)
    args = parser.parse_args(argv)
    debug = args.debug or os.environ.get("VISIONATTN_DEBUG") == "1"
    # Compiled operations of mmcv, which nothing here uses.
    warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``", category=UserWarning)
    # Of many processes: mmengine on the threads that it gives each, torch on an argument of mmengine's.
    warnings.filterwarnings("ignore", message="Setting (MKL|OMP)_NUM_THREADS environment", category=UserWarning)
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
    try:
        code: int = module.run(args)
    except KeyboardInterrupt:
        print("visionattn: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from visionattn.cli.errors import as_answer

        answer = None if debug else as_answer(error)
        if answer is None:
            raise
        print(f"visionattn: error: {answer}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    raise SystemExit(main())

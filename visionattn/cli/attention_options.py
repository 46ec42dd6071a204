"""What the commands that measure mechanisms share."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionattn.analysis.bench.candidate import Sizes
    from visionattn.analysis.bench.forecast import Limits


def add_measuring_options(parser: ArgumentParser) -> None:
    parser.add_argument("--dim", type=int, default=128, metavar="C", help="channels of the maps (128)")
    parser.add_argument(
        "--heads", type=int, default=4, metavar="N", help="of mechanisms whose published form has several (4)"
    )
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="maps at once (1)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the CPU; torch's default if not given")
    parser.add_argument(
        "--run-seconds", type=float, default=5.0, metavar="S", help="leave out what would take longer a run (5)"
    )
    parser.add_argument(
        "--run-megabytes",
        type=float,
        default=2000.0,
        metavar="MB",
        help="leave out what would hold more, weights included (2000)",
    )


def grid(text: str) -> tuple[int, ...]:
    """A grid as it is written on the command line: 4096, 64x64 or 8x32x32.

    Raises:
        ArgumentTypeError: it is not written so.
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", text):
        raise ArgumentTypeError(f"{text!r} is no grid; write 64x64, or 4096 for a row, or 8x32x32 for a volume")
    return tuple(int(extent) for extent in text.split("x"))


def check_numbers(args: Namespace, *names: str) -> None:
    """Raises ValueError for the first of these options that is not above 0."""
    for name in ("dim", "heads", "batch", "threads", "run_seconds", "run_megabytes", *names):
        number = getattr(args, name)
        if number is not None and not number > 0:
            raise ValueError(f"--{name.replace('_', '-')} {number:g}: expected a number above 0")


def mechanisms_from(names: Sequence[str]) -> list[str]:
    """Registry names, each once; all mechanisms if none is given.

    Raises:
        KeyError: no mechanism is called so; the message has the nearest ones.
    """
    from visionattn.attention.build import attention_class, list_attention

    return list(dict.fromkeys(attention_class(name).__name__ for name in names)) or list_attention()


def sizes_from(args: Namespace, names: Sequence[str]) -> Sizes:
    """The sizes that the options give, which every one of these mechanisms takes.

    Raises:
        ValueError: one of them does not; the message names it.
    """
    from visionattn.analysis.bench.candidate import Sizes, candidate

    sizes = Sizes(args.dim, args.heads, args.batch)
    for name in names:
        candidate(name, "self", (8, 8), sizes, "meta")
    return sizes


def limits_from(args: Namespace) -> Limits:
    from visionattn.analysis.bench.forecast import Limits

    return Limits(args.run_seconds, int(1e6 * args.run_megabytes), getattr(args, "minutes", None))

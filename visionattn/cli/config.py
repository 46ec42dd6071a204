"""`visionattn config`."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace

from visionattn.cli.options import add_cfg_options, add_config_argument


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser("show", help="the config with its bases and options worked in")
    add_config_argument(show)
    check = actions.add_parser("check", help="look for unknown types and keywords and missing files; needs no data")
    add_config_argument(check)
    diff = actions.add_parser("diff", help="what two configs differ in; exit code 1 where they do")
    diff.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    diff.add_argument("other", metavar="OTHER", help="the config to compare with")
    add_cfg_options(diff)
    explain = actions.add_parser("explain", help="a value: where it was set, what takes it, default and meaning")
    explain.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    explain.add_argument("key", metavar="KEY", help="such as model.decode_head.num_classes")
    add_cfg_options(explain)


def run(args: Namespace) -> int:
    action = {"show": _show, "check": _check, "diff": _diff, "explain": _explain}[args.action]
    try:
        code = action(args)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; python would complain of the rest once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _show(args: Namespace) -> int:
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_text import python_text

    text = python_text(load_config(args.config, parse_options(args.cfg_options)))
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.syntax import Syntax

        Console().print(Syntax(text, "python", background_color="default", word_wrap=True))
    else:
        print(text)
    return 0


def _check(args: Namespace) -> int:
    from visionattn.cli.options import quick_collections
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_check import check_notes, check_types

    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    with quick_collections():
        problems = check_types(config, options)
    for problem in problems:
        print(f"problem: {problem}")
    for note in check_notes(config):
        print(f"note: {note}")
    if not problems:
        print(f"{args.config}: every type and keyword is known, pipelines and model can be built")
    return 1 if problems else 0


def _diff(args: Namespace) -> int:
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_text import differences

    options = parse_options(args.cfg_options)
    lines = differences(load_config(args.config, options), load_config(args.other, options))
    colour = {"-": "\033[31m", "+": "\033[32m"} if sys.stdout.isatty() else {}
    for sign, text in lines:
        print(f"{colour.get(sign, '')}{sign} {text}{(colour and chr(27) + '[0m') or ''}")
    return 1 if lines else 0


def _explain(args: Namespace) -> int:
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_text import explain_key

    options = parse_options(args.cfg_options)
    rows = explain_key(load_config(args.config, options), args.key, options)
    print(args.key)
    for heading, text in rows:
        print(f"  {heading:<8} {text}")
    return 0

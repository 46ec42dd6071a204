"""`visionattn report`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", help="a training's work dir, also of one that still runs")
    parser.add_argument("--out", metavar="FILE", help="the HTML file; if not given, WORK_DIR/report.html")


def run(args: Namespace) -> int:
    from visionattn.engine.report import write_report

    print(write_report(args.work_dir, args.out))
    return 0

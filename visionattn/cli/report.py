"""`visionattn report`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("work_dir", metavar="WORK_DIR", help="a training's work dir, also of one that still runs")
    parser.add_argument("--out", metavar="FILE", help="the HTML file; if not given, WORK_DIR/report.html")
    parser.add_argument(
        "--plots", metavar="DIR", help="also write confusions and precision over recall here, as PNG files"
    )


def run(args: Namespace) -> int:
    from visionattn.engine.report import write_report

    print(write_report(args.work_dir, args.out))
    if args.plots:
        from visionattn.engine.report_plots import write_plots

        print("\n".join(map(str, write_plots(args.work_dir, args.plots))))
    return 0

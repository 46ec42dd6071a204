"""`visionattn data`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    synth = actions.add_parser("synth", help="write a data set of made-up scenes in a public data set's layout")
    layouts = synth.add_subparsers(dest="layout", metavar="LAYOUT", required=True)
    ade20k = layouts.add_parser("ade20k", help="images and masks as ADEChallengeData2016 has them")
    ade20k.add_argument("out", metavar="OUT", help="the folder to write; an existing one must be empty or the same")
    # What is not given is left to write_ade20k's own defaults.
    ade20k.add_argument("--train", type=int, metavar="N", help="training images")
    ade20k.add_argument("--val", type=int, metavar="N", help="validation images")
    ade20k.add_argument("--seed", type=int, metavar="N", help="another seed, other scenes")
    ade20k.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="height and width, or one for both")


def run(args: Namespace) -> int:
    from visionattn.data.ade20k_scenes import write_ade20k

    options = {name: getattr(args, name) for name in ("train", "val", "seed") if getattr(args, name) is not None}
    if args.size is not None:
        if len(args.size) > 2:
            raise ValueError(f"--size expects height and width, or one number for both; got {len(args.size)} numbers")
        options["size"] = (args.size[0], args.size[-1])
    print(f"made-up scenes in {write_ade20k(args.out, **options)}")
    return 0

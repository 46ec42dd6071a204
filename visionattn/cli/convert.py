"""`visionattn convert`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from visionattn.cli.options import add_allow


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="IN", help="a .pth or .safetensors file; whose names it has is detected")
    parser.add_argument("out", metavar="OUT", help="what to write: .safetensors, .pth or .pt")
    parser.add_argument("--to", required=True, metavar="DIALECT", help="timm, microsoft, torchvision or mmseg")
    add_allow(parser)
    parser.add_argument("--prefix", default="", metavar="TEXT", help="take only names that begin so, and cut it off")
    parser.add_argument(
        "--window", nargs=2, type=int, metavar=("H", "W"), help="of a Swin V2 to torchvision, if the file does not tell"
    )


def run(args: Namespace) -> int:
    from visionattn.weights.converted_file import convert_file

    window = None if args.window is None else tuple(args.window)
    print(convert_file(args.file, args.out, args.to, prefix=args.prefix, window=window, allow=args.allow))
    print(Path(args.out))
    return 0

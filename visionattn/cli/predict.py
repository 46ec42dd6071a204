"""`visionattn predict`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from visionattn.cli.options import add_cfg_options
from visionattn.cli.predict_pairs import add_camera_arguments, names_a_camera


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders or quoted patterns; for stereo LEFT RIGHT, two files or two folders of equal names",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where the pictures, maps and found objects go")
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; the accelerator if there is one")
    add_camera_arguments(parser)
    add_cfg_options(parser)


def run(args: Namespace) -> int:
    from visionattn.cli.predict_images import predict_images
    from visionattn.cli.predict_objects import predict_objects
    from visionattn.cli.predict_pairs import predict_pairs
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.inference import finds_objects, takes_pairs

    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    with named_in(config, options):
        if takes_pairs(config):
            predict_pairs(config, args)
        elif names_a_camera(args):
            raise ValueError(f"--focal and --baseline are for pairs of images; {args.config} is no stereo config")
        elif finds_objects(config):
            predict_objects(config, args)
        else:
            predict_images(config, args)
    return 0

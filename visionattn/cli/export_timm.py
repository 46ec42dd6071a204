"""`visionattn export timm`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from visionattn.cli.options import add_allow, add_cfg_options


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a path, a config's name, or a backbone's such as swin_tiny_window7"
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a .pth or .safetensors file, or a run's .sharded folder"
    )
    # Not required by argparse: where one of the two is left out, it is the checkpoint.
    parser.add_argument("out", metavar="OUT", nargs="?", help="the folder to write: new, or empty")
    add_allow(parser)
    add_cfg_options(parser)


def run(args: Namespace) -> int:
    if args.out is None:
        raise ValueError(f"an export needs weights: visionattn export timm {args.config} CHECKPOINT {args.checkpoint}")
    from visionattn.cli.options import quick_collections
    from visionattn.engine.config import parse_options
    from visionattn.export.timm_folder import export_timm

    with quick_collections():
        options = parse_options(args.cfg_options)
        source = export_timm(args.config, args.checkpoint, args.out, options, args.allow)
    maps = ", ".join(f"{info['num_chs']} x 1/{info['reduction']}" for info in source.model.feature_info)
    print(f"weights   {source.report}")
    print(f"model     {source.architecture}, maps {maps}")
    print(f"exported  {args.out}: config.json, model.safetensors, README.md")
    print(f'use       import timm, visionattn.export.timm; timm.create_model("local-dir:{args.out}", pretrained=True)')
    return 0

"""`visionattn data`."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from visionattn.cli.options import add_cfg_options


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="find everything that is wrong with a config's data before training")
    check.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    check.add_argument("--decode", action="store_true", help="decode every image too, not the headers alone")
    check.add_argument("--json", metavar="FILE", help="write all that was found, every case of it, to this file")
    add_cfg_options(check)
    check.set_defaults(action_run=_check)

    browse = actions.add_parser("browse", help="write an HTML page of samples as the network sees them, augmented")
    browse.add_argument("config", metavar="CONFIG", help="a path, or a name such as quickstart/segmentation")
    browse.add_argument("--out", metavar="PATH", help="an .html file or a folder; the current folder if not given")
    browse.add_argument("--number", type=int, default=24, metavar="N", help="samples (24)")
    browse.add_argument("--split", default="train", choices=("train", "val", "test"), help="train if not given")
    browse.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other augmentations (0)")
    add_cfg_options(browse)
    browse.set_defaults(action_run=_browse)

    synth = actions.add_parser("synth", help="write a data set of made-up scenes in a public data set's layout")
    layouts = synth.add_subparsers(dest="layout", metavar="LAYOUT", required=True)
    ade20k = layouts.add_parser("ade20k", help="images and masks as ADEChallengeData2016 has them")
    ade20k.add_argument("out", metavar="OUT", help="the folder to write; an existing one must be empty or the same")
    # What is not given is left to the writers' own defaults.
    ade20k.add_argument("--train", type=int, metavar="N", help="training images")
    ade20k.add_argument("--val", type=int, metavar="N", help="validation images")
    ade20k.add_argument("--seed", type=int, metavar="N", help="another seed, other scenes")
    ade20k.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="height and width, or one for both")
    ade20k.set_defaults(action_run=_synth_ade20k)
    coco = layouts.add_parser("coco", help="images with boxes, masks and crowds as COCO's instances have them")
    coco.add_argument("out", metavar="OUT", help="the folder to write; an existing one must be empty or the same")
    coco.add_argument("--train", type=int, metavar="N", help="training images (400)")
    coco.add_argument("--val", type=int, metavar="N", help="validation images (80)")
    coco.add_argument("--seed", type=int, metavar="N", help="another seed, other scenes")
    coco.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="height and width (192 256)")
    coco.set_defaults(action_run=_synth_coco)
    sceneflow = layouts.add_parser("sceneflow", help="stereo pairs as Scene Flow's FlyingThings3D has them")
    sceneflow.add_argument("out", metavar="OUT", help="the folder to write; an existing one must be empty or the same")
    sceneflow.add_argument("--scenes", type=int, metavar="N", help="training pairs (200)")
    sceneflow.add_argument("--test", type=int, metavar="N", help="test pairs (20)")
    sceneflow.add_argument("--seed", type=int, metavar="N", help="another seed, other scenes")
    sceneflow.add_argument("--size", type=int, nargs="+", metavar="PIXELS", help="height and width (540 960)")
    sceneflow.add_argument("--max-disparity", type=float, metavar="PIXELS", help="all disparities are below it (192)")
    sceneflow.add_argument(
        "--asymmetry", type=float, metavar="SHARE", help="how far the final pass's two cameras differ, 0 to 1 (0.3)"
    )
    sceneflow.set_defaults(action_run=_synth_sceneflow)


def run(args: Namespace) -> int:
    code: int = args.action_run(args)
    return code


def _check(args: Namespace) -> int:
    from mmengine.logging import MMLogger

    from visionattn.cli.data_tables import print_report, track
    from visionattn.cli.options import quick_collections
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_mistakes import named_in
    from visionattn.engine.data_check import check_data
    from visionattn.engine.terminal import make_terminal_quiet

    make_terminal_quiet(MMLogger.get_current_instance())
    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    with quick_collections(), named_in(config, options):
        report = check_data(config, decode=args.decode, track=track, options=options)
    if not report.splits:
        raise ValueError(f"{config.filename} has no train_dataloader, val_dataloader or test_dataloader")
    print_report(report)
    if args.json:
        path = Path(args.json)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"config": config.filename, **report.as_dict()}, indent=1) + "\n")
    return 1 if report.count("error") else 0


def _browse(args: Namespace) -> int:
    from visionattn.cli.options import quick_collections
    from visionattn.engine.browse import browse
    from visionattn.engine.config import load_config, parse_options
    from visionattn.engine.config_mistakes import named_in

    options = parse_options(args.cfg_options)
    config = load_config(args.config, options)
    path = Path(args.out or ".")
    if path.suffix.lower() not in (".html", ".htm"):
        path = path / f"{Path(config.filename).stem}_{args.split}.html"
    with quick_collections(), named_in(config, options):
        content = browse(config, args.split, args.number, args.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _synth_ade20k(args: Namespace) -> int:
    from visionattn.data.ade20k_scenes import write_ade20k

    print(f"made-up scenes in {write_ade20k(args.out, **_given(args, 'train', 'val', 'seed', 'size'))}")
    return 0


def _synth_coco(args: Namespace) -> int:
    from visionattn.data.coco_scenes import write_coco

    print(f"made-up scenes in {write_coco(args.out, **_given(args, 'train', 'val', 'seed', 'size'))}")
    return 0


def _synth_sceneflow(args: Namespace) -> int:
    from visionattn.data.sceneflow_scenes import write_sceneflow

    options = _given(args, "scenes", "test", "seed", "size", "max_disparity", "asymmetry")
    print(f"made-up stereo scenes in {write_sceneflow(args.out, **options)}")
    return 0


def _given(args: Namespace, *names: str) -> dict[str, Any]:
    """The options that the command line gives; a size of one number is that of both sides."""
    options = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "size" in options:
        size = options["size"]
        if len(size) > 2:
            raise ValueError(f"--size expects height and width, or one number for both; got {len(size)} numbers")
        options["size"] = (size[0], size[-1])
    return options

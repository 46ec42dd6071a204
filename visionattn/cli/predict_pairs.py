"""What `visionattn predict` writes of stereo pairs."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from visionattn.cli.predict_names import free_path

if TYPE_CHECKING:
    from mmengine.config import Config

    from visionattn.stereo.camera import StereoCamera

_NEED_BASELINE = ("offset", "centre", "farthest")


def add_camera_arguments(parser: ArgumentParser) -> None:
    camera = parser.add_argument_group("stereo: depth in metres and a point cloud")
    camera.add_argument("--focal", type=float, metavar="PIXELS", help="focal length at the size of the images")
    camera.add_argument("--baseline", type=float, metavar="METRES", help="distance of the two cameras")
    camera.add_argument("--offset", type=float, metavar="PIXELS", help="added to disparities (doffs of Middlebury)")
    camera.add_argument("--centre", type=float, nargs=2, metavar=("X", "Y"), help="principal point; else the middle")
    camera.add_argument("--farthest", type=float, metavar="METRES", help="where the point cloud ends")


def names_a_camera(args: Namespace) -> bool:
    return any(getattr(args, name) is not None for name in ("focal", "baseline", *_NEED_BASELINE))


def predict_pairs(config: Config, args: Namespace) -> None:
    """Writes the disparity of every pair and, where the camera is known, its depth and points."""
    from visionattn.data.images import read_image
    from visionattn.engine.pair_inference import PairPredictor, expand_pairs
    from visionattn.stereo.prediction_files import write_depth, write_disparity

    camera = _camera(args)
    pairs = expand_pairs(args.images)
    predictor = PairPredictor(config, args.checkpoint, args.device)
    out, taken = Path(args.out), set[Path]()
    for left, right in pairs:
        name = free_path(Path(Path(str(left)).stem), taken).name
        with _shown_warnings():
            disparity = predictor(left, right).predicted.cpu().numpy()
            written = write_disparity(disparity, out, name)
            if camera is not None:
                farthest = float("inf") if args.farthest is None else args.farthest
                written += write_depth(disparity, read_image(str(left)), camera, out, name, farthest)
        for path in written:
            print(path)


def _camera(args: Namespace) -> StereoCamera | None:
    from visionattn.stereo.camera import StereoCamera

    if not names_a_camera(args):
        return None
    for name in ("focal", "baseline"):
        if getattr(args, name) is None:
            raise ValueError(f"depth in metres needs --focal PIXELS and --baseline METRES; --{name} is missing")
    return StereoCamera(args.focal, args.baseline, args.offset or 0.0, tuple(args.centre) if args.centre else None)


@contextmanager
def _shown_warnings() -> Iterator[None]:
    """What this package warns of, in one line without the source's; what others warn of as they do."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", category=UserWarning, module=r"visionattn\.")
        yield
    for warning in caught:
        if issubclass(warning.category, UserWarning) and Path(warning.filename).is_relative_to(Path(__file__).parent):
            print(f"visionattn: warning: {warning.message}", file=sys.stderr)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)

"""What `visionattn predict` writes of images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from visionattn.cli.predict_names import free_path

if TYPE_CHECKING:
    from mmengine.config import Config


def predict_images(config: Config, args: Namespace) -> None:
    """Writes input | prediction of every image."""
    from visionattn.engine.inference import Predictor, expand_inputs
    from visionattn.segmentation.pictures import write_panel

    files = [Path(str(file)) for file in expand_inputs(args.images)]
    predictor = Predictor(config, args.checkpoint, args.device)
    taken: set[Path] = set()
    for file in files:
        path = free_path(Path(args.out) / f"{file.stem}.png", taken)
        write_panel(predictor(file), predictor.classes, predictor.palette, path)
        print(path)

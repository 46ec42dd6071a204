"""Predictions as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
from mmengine.hooks import Hook

from visionattn.data.images import read_image
from visionattn.registry import HOOKS


def write_panel(
    sample: Any, classes: Sequence[str] | None, palette: Sequence[Sequence[int]] | None, path: str | Path
) -> None:
    """Writes input | truth | prediction | error (input | prediction without truth) of a segmented image file.

    Args:
        sample: mmseg's data sample with `img_path` and `pred_sem_seg`.
        classes: names; numbers if None.
        path: a PNG file; folders are made.
    Raises:
        OSError: the file cannot be written.
    """
    from visionattn.visualization.panels import segmentation_panel

    prediction = sample.pred_sem_seg.data[0].cpu().numpy()
    truth = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
    names = list(classes or map(str, range(int(prediction.max()) + 1)))
    panel = segmentation_panel(read_image(sample.img_path), truth, prediction, names, palette)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), panel[..., ::-1]):
        raise OSError(f"{path} could not be written; is the disk full?")


@HOOKS.register_module()
class TestPicturesHook(Hook):
    """Writes a picture of every tested image.

    Args:
        out: the folder.
    """

    __test__ = False  # pytest takes its name for a test's

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        meta = runner.test_dataloader.dataset.metainfo
        for sample in outputs or ():
            path = self.out / f"{Path(sample.img_path).stem}.png"
            write_panel(sample, meta.get("classes"), meta.get("palette"), path)

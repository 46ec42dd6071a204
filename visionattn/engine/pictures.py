"""Predictions as picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from visionattn.registry import HOOKS


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
        from visionattn.segmentation.pictures import write_panel

        meta = runner.test_dataloader.dataset.metainfo
        for sample in outputs or ():
            path = self.out / f"{Path(sample.img_path).stem}.png"
            write_panel(sample, meta.get("classes"), meta.get("palette"), path)

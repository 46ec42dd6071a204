"""What colour alone would have scored, printed at the end of a training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook

from visionattn.data.colour_baseline import Pair, colour_classifier_miou
from visionattn.data.images import read_image
from visionattn.registry import HOOKS
from visionattn.segmentation.datasets import ImageMaskFolder
from visionattn.segmentation.labels import read_mask, to_labels


@HOOKS.register_module()
class ColourBaselineHook(Hook):
    """Ends a training with the mIoU of a classifier that sees one pixel's colour, beside the network's.

    Args:
        images: training images that it learns from, at most, evenly spaced; it is evaluated on all that validate.
    """

    priority = "VERY_LOW"  # the two lines are the last of the run

    def __init__(self, images: int = 300) -> None:
        self.images = images
        self._miou: float | None = None

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._miou = (metrics or {}).get("mIoU")

    @master_only
    def after_train(self, runner: Any) -> None:
        train, val = runner.train_dataloader.dataset, runner.val_dataloader.dataset
        for dataset in (train, val):
            if not isinstance(dataset, ImageMaskFolder):
                raise TypeError(
                    f"ColourBaselineHook reads visionattn's datasets, got {type(dataset).__name__}; take it out of "
                    "custom_hooks"
                )
        spread = np.linspace(0, len(train) - 1, min(self.images, len(train))).round().astype(int)
        miou, _ = colour_classifier_miou(
            _arrays(train, spread.tolist()), _arrays(val, range(len(val))), len(train.classes)
        )
        lines = [f"colour classifier mIoU {miou:.4f}"]
        if self._miou is not None:
            lines.append(f"mIoU {self._miou / 100:.4f}")
        runner.logger.info("\n".join(lines))


def _arrays(dataset: ImageMaskFolder, indices: Any) -> Iterator[Pair]:
    table = dataset.label_table()
    pairs = dataset.pairs()
    for index in indices:
        image, mask = pairs[index]
        yield read_image(image), to_labels(read_mask(mask), table, mask)

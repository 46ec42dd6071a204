"""Pictures of some predictions at every evaluation, whatever the task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook

from visionattn.engine.pictures import input_of
from visionattn.registry import HOOKS
from visionattn.visualization.picture_file import write_picture
from visionattn.visualization.prediction_view import prediction_view


@HOOKS.register_module()
class PredictionPicturesHook(Hook):
    """Writes pictures of some samples to work_dir/pictures at every validation and test, as their task draws them.

    They are spread evenly over the data set and the same each time, so after a training they show its last state.

    Args:
        number: how many; 0 writes none.
    """

    def __init__(self, number: int = 8) -> None:
        if number < 0:
            raise ValueError(f"number={number} of pictures must be 0 or more")
        self.number = number
        self._chosen: set[int] = set()

    def before_val_epoch(self, runner: Any) -> None:
        self._choose(runner.val_dataloader)

    def before_test_epoch(self, runner: Any) -> None:
        self._choose(runner.test_dataloader)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._draw(runner, runner.val_dataloader, batch_idx, data_batch, outputs or ())

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._draw(runner, runner.test_dataloader, batch_idx, data_batch, outputs or ())

    def _choose(self, loader: Any) -> None:
        size = len(loader.dataset)
        self._chosen = set(np.linspace(0, size - 1, min(self.number, size)).round().astype(int).tolist())

    def _draw(self, runner: Any, loader: Any, batch_idx: int, data_batch: Any, outputs: Sequence[Any]) -> None:
        metainfo = getattr(loader.dataset, "metainfo", None) or {}
        for index, sample in enumerate(outputs):
            # Evaluation samples in order, one for each process in turn.
            position = (batch_idx * loader.batch_size + index) * runner.world_size + runner.rank
            if position in self._chosen:
                self._chosen.remove(position)
                view = prediction_view(sample, input_of(data_batch["inputs"], index), metainfo)
                write_picture(view.picture, Path(runner.work_dir) / "pictures" / f"{view.name}.png")

"""Predictions as picture files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook

from visionattn.registry import HOOKS
from visionattn.visualization.picture_file import write_picture
from visionattn.visualization.prediction_view import prediction_view


@HOOKS.register_module()
class TestPicturesHook(Hook):
    """Writes a picture of every tested sample.

    Args:
        out: the folder.
    """

    __test__ = False  # pytest takes its name for a test's

    def __init__(self, out: str | Path) -> None:
        self.out = Path(out)

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        metainfo = getattr(runner.test_dataloader.dataset, "metainfo", None) or {}
        for index, sample in enumerate(outputs or ()):
            view = prediction_view(sample, input_of(data_batch["inputs"], index), metainfo)
            write_picture(view.picture, self.out / f"{view.name}.png")


def input_of(inputs: Any, index: int) -> Any:
    """One sample's part of a collated batch: several views have a batch each."""
    if isinstance(inputs, Mapping):
        return {name: input_of(part, index) for name, part in inputs.items()}
    return inputs[index]

"""Pictures of disparities beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.hooks import Hook
from numpy.typing import NDArray
from torch import Tensor

from visionattn.registry import HOOKS
from visionattn.stereo.packing import StereoSample
from visionattn.visualization.disparity_panel import disparity_panel
from visionattn.visualization.picture_file import write_picture
from visionattn.visualization.prediction_view import PredictionView, prediction_view

Pixels = NDArray[np.uint8]


@HOOKS.register_module()
class DisparityPictureHook(Hook):
    """Writes left | truth | disparity | error of some pairs to work_dir/pictures at every validation and test.

    The pairs are spread evenly over the data set and the same each time, so after a training they show its last state.

    Args:
        number: how many; 0 writes none.
        high: disparity in pixels at which the colours end, the same for all pairs; each pair's own largest if None.
    """

    def __init__(self, number: int = 8, high: float | None = None) -> None:
        if number < 0:
            raise ValueError(f"number={number} of pictures must be 0 or more")
        self.number = number
        self.high = high
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
        for index, sample in enumerate(outputs):
            # Evaluation samples in order, one for each process in turn.
            position = (batch_idx * loader.batch_size + index) * runner.world_size + runner.rank
            if position in self._chosen:
                self._chosen.remove(position)
                left = as_pixels(data_batch["inputs"]["left"][index])
                path = Path(runner.work_dir) / "pictures" / f"{file_name(sample, position)}.png"
                write_picture(sample_panel(sample, left, self.high), path)


def sample_panel(sample: StereoSample, left: Pixels, high: float | None = None) -> Pixels:
    """The panel of a predicted sample: left | truth | disparity | error, or left | disparity without truth.

    Args:
        sample: with `predicted`.
        left: [H, W, 3], RGB, the view that was predicted on; shown at the prediction's size.
        high: as of `disparity_panel`.
    """
    predicted = sample.predicted.cpu().numpy()
    if left.shape[:2] != predicted.shape:
        left = np.asarray(cv2.resize(left, predicted.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    truth = (sample.get(key).cpu().numpy() if key in sample else None for key in ("disparity", "valid", "nonoccluded"))
    return disparity_panel(left, predicted, *truth, high=high)


@prediction_view.register
def _stereo_view(sample: StereoSample, inputs: Mapping[str, Tensor], metainfo: Mapping[str, Any]) -> PredictionView:
    return PredictionView(file_name(sample), sample_panel(sample, as_pixels(inputs["left"])))


def as_pixels(view: Tensor) -> Pixels:
    """[H, W, 3] of a view [3, H, W], 8 bit."""
    return np.ascontiguousarray(view.cpu().numpy().transpose(1, 2, 0))


def file_name(sample: StereoSample, position: int = 0) -> str:
    """What to call a file about this sample: its name, whose folders become underscores."""
    name = str(sample.get("name") or "") or Path(str(sample.get("left_path") or "")).stem or f"{position:06d}"
    return name.strip("/\\").replace("/", "_").replace("\\", "_")

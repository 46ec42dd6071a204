"""Pictures of disparities beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import barrier
from mmengine.hooks import Hook
from numpy.typing import NDArray
from torch import Tensor

from visionattn.registry import HOOKS
from visionattn.stereo.errors import FIELDS, error_sums
from visionattn.stereo.packing import StereoSample
from visionattn.visualization.disparity_panel import disparity_panel, disparity_tiles
from visionattn.visualization.extremes import Extremes
from visionattn.visualization.picture_file import write_picture
from visionattn.visualization.prediction_view import PredictionView, prediction_view

Pixels = NDArray[np.uint8]

_MEASURE = "right by D1, %"


@HOOKS.register_module()
class DisparityPictureHook(Hook):
    """Writes left | truth | disparity | error of some pairs to work_dir/pictures at every validation and test.

    The pairs are spread evenly over the data set and the same each time, so after a training they show its last state.
    Those that came out best and worst, by the share of pixels that are right to 3 pixels or 5 % (D1), go to
    work_dir/evaluation/examples, for the run's report.

    Args:
        number: how many; 0 writes none.
        high: disparity in pixels at which the colours end, the same for all pairs; each pair's own largest if None.
        extremes: how many of the best and of the worst; 0 writes none.
    """

    def __init__(self, number: int = 8, high: float | None = None, extremes: int = 4) -> None:
        if number < 0:
            raise ValueError(f"number={number} of pictures must be 0 or more")
        self.number = number
        self.high = high
        self.extremes = extremes
        self._chosen: set[int] = set()
        self._extremes = Extremes(extremes, _MEASURE)

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

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._write_extremes(runner)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._write_extremes(runner)

    def _write_extremes(self, runner: Any) -> None:
        if self.extremes:
            self._extremes.write(Path(runner.work_dir) / "evaluation" / "examples", runner.rank, runner.world_size)
            barrier()  # the report that the first process may write next has every process's

    def _choose(self, loader: Any) -> None:
        self._extremes = Extremes(self.extremes, _MEASURE)
        size = len(loader.dataset)
        self._chosen = set(np.linspace(0, size - 1, min(self.number, size)).round().astype(int).tolist())

    def _draw(self, runner: Any, loader: Any, batch_idx: int, data_batch: Any, outputs: Sequence[Any]) -> None:
        for index, sample in enumerate(outputs):
            # Evaluation samples in order, one for each process in turn.
            position = (batch_idx * loader.batch_size + index) * runner.world_size + runner.rank
            left = data_batch["inputs"]["left"][index]
            self._look(sample, left, position)
            if position in self._chosen:
                self._chosen.remove(position)
                path = Path(runner.work_dir) / "pictures" / f"{file_name(sample, position)}.png"
                write_picture(sample_panel(sample, as_pixels(left), self.high), path)

    def _look(self, sample: StereoSample, left: Tensor, position: int) -> None:
        """Keeps the sample if it is among the best or the worst so far."""
        if not self.extremes or "disparity" not in sample:
            return
        sums = dict(
            zip(FIELDS, error_sums(sample.predicted, sample.disparity, sample.valid, sample.valid), strict=True)
        )
        score = 100 * (1 - float(sums["D1"] / sums["counted"]))  # NaN where nothing is known
        if self._extremes.wants(score):
            kept, shown, high = sample.cpu(), as_pixels(left), self.high
            name = str(sample.get("left_path") or file_name(sample, position))
            self._extremes.keep(score, name, lambda: sample_tiles(kept, shown, high))


def sample_panel(sample: StereoSample, left: Pixels, high: float | None = None) -> Pixels:
    """The panel of a predicted sample: left | truth | disparity | error, or left | disparity without truth.

    Args:
        sample: with `predicted`.
        left: [H, W, 3], RGB, the view that was predicted on; shown at the prediction's size.
        high: as of `disparity_panel`.
    """
    return disparity_panel(*_maps(sample, left), high=high)


def sample_tiles(sample: StereoSample, left: Pixels, high: float | None = None) -> list[tuple[str, Pixels]]:
    """The tiles of `sample_panel` under their titles."""
    return disparity_tiles(*_maps(sample, left), high=high)


def _maps(sample: StereoSample, left: Pixels) -> list[Any]:
    """Left view, disparity, truth, valid and nonoccluded, as `disparity_panel` takes them."""
    predicted = sample.predicted.cpu().numpy()
    if left.shape[:2] != predicted.shape:
        left = np.asarray(cv2.resize(left, predicted.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
    truth = (sample.get(key).cpu().numpy() if key in sample else None for key in ("disparity", "valid", "nonoccluded"))
    return [left, predicted, *truth]


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

"""Pictures of predictions beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import barrier
from mmengine.hooks import Hook
from mmseg.structures import SegDataSample
from numpy.typing import NDArray

from visionattn.data.images import read_image
from visionattn.registry import HOOKS
from visionattn.segmentation.extremes import SegmentationExtremes
from visionattn.segmentation.labels import IGNORE
from visionattn.visualization.picture_file import write_picture
from visionattn.visualization.prediction_view import PredictionView, prediction_view


@HOOKS.register_module()
class PictureHook(Hook):
    """Writes input | truth | prediction | error of some images to work_dir/pictures at every validation and test.

    The images are spread evenly over the dataset and the same each time, so after a training they show its last state.
    Those that came out best and worst go to work_dir/evaluation/examples, for the run's report.

    Args:
        number: how many; 0 writes none.
        ignore_index: the label that is drawn as no class.
        extremes: how many of the best and of the worst; 0 writes none.
    """

    def __init__(self, number: int = 8, ignore_index: int = IGNORE, extremes: int = 4) -> None:
        if number < 0:
            raise ValueError(f"number={number} of pictures must be 0 or more")
        self.number = number
        self.ignore_index = ignore_index
        self.extremes = extremes
        self._chosen: set[str] = set()
        self._extremes = SegmentationExtremes(extremes, {})

    def before_val_epoch(self, runner: Any) -> None:
        self._choose(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Any) -> None:
        self._choose(runner.test_dataloader.dataset)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._draw(outputs or (), runner.val_dataloader.dataset.metainfo, folder(runner))

    def after_test_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Sequence[Any] | None = None
    ) -> None:
        self._draw(outputs or (), runner.test_dataloader.dataset.metainfo, folder(runner))

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._write_extremes(runner)

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        self._write_extremes(runner)

    def _write_extremes(self, runner: Any) -> None:
        if self.extremes:
            out = Path(runner.work_dir) / "evaluation" / "examples"
            self._extremes.write(out, runner.rank, runner.world_size)
            barrier()  # the report that the first process may write next has every process's

    def _choose(self, dataset: Any) -> None:
        self._extremes = SegmentationExtremes(self.extremes, dataset.metainfo, self.ignore_index)
        spread = np.linspace(0, len(dataset) - 1, min(self.number, len(dataset))).round().astype(int)
        self._chosen = {dataset.get_data_info(int(index))["img_path"] for index in spread}

    def _draw(self, samples: Sequence[Any], metainfo: dict[str, Any], out: Path) -> None:
        for sample in samples:
            if self.extremes and "gt_sem_seg" in sample:
                self._extremes.look(sample)
            if sample.img_path in self._chosen:
                self._chosen.remove(sample.img_path)
                path = out / f"{Path(sample.img_path).stem}.png"
                write_panel(sample, metainfo["classes"], metainfo["palette"], path, self.ignore_index)


def write_panel(
    sample: Any,
    classes: Sequence[str] | None,
    palette: Sequence[Sequence[int]] | None,
    path: str | Path,
    ignore_index: int = IGNORE,
) -> None:
    """Writes input | truth | prediction | error (input | prediction without truth) of a segmented image file.

    Args:
        sample: mmseg's data sample with `img_path` and `pred_sem_seg`.
        classes: names; numbers if None.
        path: a PNG file; folders are made.
        ignore_index: the label that is drawn as no class.
    Raises:
        OSError: the file cannot be written.
    """
    write_picture(_panel(sample, classes, palette, ignore_index), path)


@prediction_view.register
def _segmentation_view(sample: SegDataSample, inputs: Any, metainfo: Mapping[str, Any]) -> PredictionView:
    panel = _panel(sample, metainfo.get("classes"), metainfo.get("palette"), IGNORE)
    return PredictionView(Path(sample.img_path).stem, panel)


def _panel(
    sample: Any, classes: Sequence[str] | None, palette: Sequence[Sequence[int]] | None, ignore_index: int
) -> NDArray[np.uint8]:
    from visionattn.visualization.panels import segmentation_panel

    prediction = sample.pred_sem_seg.data[0].cpu().numpy()
    truth = sample.gt_sem_seg.data[0].cpu().numpy() if "gt_sem_seg" in sample else None
    names = list(classes or map(str, range(int(prediction.max()) + 1)))
    return segmentation_panel(read_image(sample.img_path), truth, prediction, names, palette, ignore_index)


def folder(runner: Any) -> Path:
    """Where a run's pictures lie."""
    return Path(runner.work_dir) / "pictures"

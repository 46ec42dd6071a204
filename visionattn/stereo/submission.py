"""Predictions as the benchmarks' servers take them: folders of files, and the archive to upload.

Formats as described by KITTI's development kits (readme.txt of 2012 and of 2015), by Middlebury's
submit3/upload-format.html, and for ETH3D by the Robust Vision Challenge's kit (ozendelait/rvc_devkit@2229879,
stereo/benchmark_eth3d.py): ETH3D's own page on submissions could not be read. No archive was uploaded.
"""

from __future__ import annotations

import logging
import re
import zipfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather, barrier, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from numpy.typing import NDArray

from visionattn.data.dealing import all_lists
from visionattn.data.disparity_png import write_disparity_png
from visionattn.data.pfm import write_pfm
from visionattn.registry import METRICS

_LARGEST_IN_PNG = 65535 / 256


class Submission(BaseMetric):
    """Writes the prediction of every sample, and an archive of all; scores nothing and needs no truth.

    Stands where a metric does, as mmsegmentation's `format_only` does: `test_evaluator=dict(type="visionattn....")`.

    Args:
        out: the folder that gets a folder of files and an archive, both called NAME; in a run of visionattn's Runner
            work_dir/evaluation if None.
    """

    NAME: str
    COUNTS: tuple[int, ...]
    """How many pairs a complete submission has."""

    def __init__(self, out: str | Path | None = None) -> None:
        super().__init__()
        self.out = out  # a Runner puts its own folder where there is None
        self._written: list[str] = []

    @abstractmethod
    def write(self, sample: dict[str, Any], disparity: NDArray[np.float32], folder: Path) -> list[str]:
        """Writes a prediction's files, and returns their names in the folder, with slashes.

        Raises:
            ValueError: the sample is none of this benchmark's.
        """

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:
        """Writes the files of these samples.

        Raises:
            ValueError: a prediction that is not finite or not of its image's size, a sample that is not the
                benchmark's; names it.
        """
        for sample in data_samples:
            disparity = sample["predicted"].cpu().numpy()
            size = sample.get("ori_shape")
            if size is not None and tuple(size) != disparity.shape:
                raise ValueError(
                    f"{_called(sample)} is {_times(size)}, its disparity {_times(disparity.shape)}: a submission has "
                    "whole images; take transforms that crop or scale out of the test data"
                )
            if not np.isfinite(disparity).all():
                raise ValueError(f"{_called(sample)}: the disparity is NaN or infinite; look at the checkpoint")
            self._written += self.write(sample, disparity, self.folder)

    @property
    def folder(self) -> Path:
        if self.out is None:
            raise ValueError(f'{type(self).__name__} does not know where to write; set out="FOLDER"')
        return Path(self.out) / self.NAME

    def evaluate(self, size: int) -> dict[str, float]:
        """Packs what all processes have written; no figures."""
        names = sorted({name for names in all_lists(self._written, all_gather) for name in names})
        self._written = []
        if is_main_process():
            archive = self.folder.with_name(f"{self.NAME}.zip")
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
                for name in names:
                    packed.write(self.folder / name, name)
            maps = sum(not name.endswith(".txt") for name in names)
            print_log(f"submission of {maps} disparity maps in {archive}", logger="current")
            if maps not in self.COUNTS:
                wanted = " or ".join(map(str, self.COUNTS))
                message = f"{archive} has {maps} disparity maps; a complete submission has {wanted}"
                print_log(message, logger="current", level=logging.WARNING)
        barrier()
        return {}

    def compute_metrics(self, results: list[Any]) -> dict[str, float]:
        """mmengine's name; nothing is scored."""
        return {}


class _KITTISubmission(Submission):
    """000000_10.png and on, in KITTI's 16 bits; disparities that 16 bits do not hold are cut to what they hold."""

    PLACE: str

    def write(self, sample: dict[str, Any], disparity: NDArray[np.float32], folder: Path) -> list[str]:
        stem = Path(str(sample.get("left_path") or sample.get("name"))).stem
        if not re.fullmatch(r"\d{6}_10", stem):
            raise ValueError(f"{_called(sample)} is no image of KITTI's, which are called 000000_10 and on")
        name = f"{self.PLACE}{stem}.png"
        path = _place(folder, name)
        write_disparity_png(path, disparity.clip(0, _LARGEST_IN_PNG), np.ones(disparity.shape, bool))
        return [name]


@METRICS.register_module()
class KITTI2012Submission(_KITTISubmission):
    """KITTI 2012: 195 files in the archive's root."""

    NAME, COUNTS, PLACE = "kitti2012", (195,), ""


@METRICS.register_module()
class KITTI2015Submission(_KITTISubmission):
    """KITTI 2015: 200 files in disp_0/."""

    NAME, COUNTS, PLACE = "kitti2015", (200,), "disp_0/"


@METRICS.register_module()
class MiddleburySubmission(Submission):
    """Middlebury v3: trainingQ/SCENE/disp0METHOD.pfm and timeMETHOD.txt, whose number is seconds; also testF ...

    Args:
        method: the name in the table; letters, digits, "-" and "_". Not one in "_s", which means a sparse map.
        out: as of `Submission`.
    """

    NAME, COUNTS = "middlebury", (15, 30)

    def __init__(self, method: str = "visionattn", out: str | Path | None = None) -> None:
        super().__init__(out)
        if not re.fullmatch(r"[A-Za-z0-9_-]+", method) or method.endswith("_s"):
            raise ValueError(f'method={method!r} must be letters, digits, "-" and "_", and not end in "_s"')
        self.method = method

    def write(self, sample: dict[str, Any], disparity: NDArray[np.float32], folder: Path) -> list[str]:
        parents = Path(str(sample.get("left_path") or "")).parts[-3:-1]
        if len(parents) != 2 or not re.fullmatch("(training|test)[FHQ]", parents[0]):
            raise ValueError(f"{_called(sample)} lies in no folder such as trainingQ/SCENE: not Middlebury v3's")
        names = ["/".join((*parents, file)) for file in (f"disp0{self.method}.pfm", f"time{self.method}.txt")]
        write_pfm(_place(folder, names[0]), disparity)
        _place(folder, names[1]).write_text(f"{_seconds(sample):.6g}\n")
        return names


@METRICS.register_module()
class ETH3DSubmission(Submission):
    """ETH3D, low-resolution two-view: low_res_two_view/SCENE.pfm, and SCENE.txt with "runtime SECONDS"."""

    NAME, COUNTS = "eth3d", (27, 20, 47)

    def write(self, sample: dict[str, Any], disparity: NDArray[np.float32], folder: Path) -> list[str]:
        path = Path(str(sample.get("left_path") or ""))
        if path.name != "im0.png" or len(path.parts) < 2:
            raise ValueError(f"{_called(sample)} is no SCENE/im0.png: not ETH3D's two views")
        names = [f"low_res_two_view/{path.parts[-2]}.{suffix}" for suffix in ("pfm", "txt")]
        write_pfm(_place(folder, names[0]), disparity)
        _place(folder, names[1]).write_text(f"runtime {_seconds(sample):.6g}\n")
        return names


def _place(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _seconds(sample: dict[str, Any]) -> float:
    seconds = sample.get("seconds")
    if seconds is None:
        raise ValueError(f"{_called(sample)} has no run time; predict with visionattn.StereoMatcher, which takes it")
    return float(seconds)


def _called(sample: dict[str, Any]) -> str:
    return str(sample.get("left_path") or sample.get("name") or "a stereo pair")


def _times(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))

"""The images that a model segments best and worst, kept while it is evaluated."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from visionattn.data.images import read_image
from visionattn.segmentation.confusion import ClassScores, confusion_matrix
from visionattn.segmentation.labels import IGNORE

_WIDTH = 480  # of a written tile, pixels


@dataclass
class _Kept:
    score: float
    path: str
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]


class Extremes:
    """The `number` best and the `number` worst images of an evaluation, by their own mIoU.

    No more label maps than these are held, so an evaluation may be of any length.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self._worst: list[_Kept] = []  # ascending
        self._best: list[_Kept] = []

    def look(self, sample: Any, num_classes: int, ignore_index: int = IGNORE) -> None:
        """Keeps an evaluated sample of mmseg's if it is among the best or the worst so far."""
        truth, prediction = sample.gt_sem_seg.data[0], sample.pred_sem_seg.data[0]
        confusion = confusion_matrix(prediction, truth, num_classes, ignore_index, sample.img_path)
        score = float(ClassScores.of(confusion.numpy()).means()["mIoU"])
        if np.isnan(score):  # nothing of it is evaluated
            return
        among_worst = len(self._worst) < self.number or score < self._worst[-1].score
        among_best = len(self._best) < self.number or score > self._best[0].score
        if among_worst or among_best:
            labels = (part.to("cpu", torch.uint8).numpy().copy() for part in (truth, prediction))
            kept = _Kept(score, sample.img_path, *labels)
            if among_worst:
                bisect.insort(self._worst, kept, key=_score)
                del self._worst[self.number :]
            if among_best:
                bisect.insort(self._best, kept, key=_score)
                del self._best[: -self.number]

    def write(
        self, out: Path, metainfo: Mapping[str, Any], ignore_index: int = IGNORE, rank: int = 0, processes: int = 1
    ) -> None:
        """Writes input, truth, prediction and error of each as pictures, and a list of them, `<rank>.json`.

        Args:
            rank, processes: this one and how many there are: each writes its own, who reads puts them together.
        """
        from visionattn.visualization.panels import segmentation_tiles

        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"{rank}-*"):
            old.unlink()
        examples = []
        both = {kept.path: kept for kept in (*self._worst, *self._best)}
        for number, kept in enumerate(sorted(both.values(), key=_score)):
            tiles, _ = segmentation_tiles(
                read_image(kept.path),
                kept.truth,
                kept.prediction,
                metainfo["classes"],
                metainfo.get("palette"),
                ignore_index,
            )
            written = []
            for title, tile in tiles:
                file = out / f"{rank}-{number}-{title.split()[0]}.jpg"
                _write_picture(file, tile)
                written.append({"title": title, "file": file.name})
            examples.append({"path": kept.path, "score": kept.score, "measure": "mIoU", "tiles": written})
        text = json.dumps({"processes": processes, "number": self.number, "examples": examples}, indent=1)
        beside = out / f".{rank}.json.{os.getpid()}"
        beside.write_text(text)
        beside.replace(out / f"{rank}.json")


def _score(kept: _Kept) -> float:
    return kept.score


def _write_picture(path: Path, tile: NDArray[np.uint8]) -> None:
    if tile.shape[1] > _WIDTH:
        height = max(1, round(tile.shape[0] * _WIDTH / tile.shape[1]))
        tile = np.asarray(cv2.resize(tile, (_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    if not cv2.imwrite(str(path), tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f"{path} could not be written; is the disk full?")

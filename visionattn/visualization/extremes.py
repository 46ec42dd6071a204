"""The samples that a model does best and worst on, kept while it is evaluated, written for the run's report."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from visionattn.visualization.tiles import Pixels

Tiles = Sequence[tuple[str, Pixels]]

_WIDTH = 480  # of a written tile, pixels


@dataclass
class _Kept:
    score: float
    path: str
    tiles: Callable[[], Tiles]


class Extremes:
    """The `number` best and the `number` worst samples of an evaluation, by a score of their own.

    No more samples than these are held, so an evaluation may be of any length.

    Args:
        number: of the best, and of the worst.
        measure: what the score is; larger is better.
    """

    def __init__(self, number: int, measure: str) -> None:
        self.number = number
        self.measure = measure
        self._worst: list[_Kept] = []  # ascending
        self._best: list[_Kept] = []

    def wants(self, score: float) -> bool:
        """Whether a sample of this score is among the best or the worst so far; none is whose score is NaN."""
        return not np.isnan(score) and (self._among_worst(score) or self._among_best(score))

    def keep(self, score: float, path: str, tiles: Callable[[], Tiles]) -> None:
        """Keeps a sample in place of one that is no longer an extreme.

        Args:
            score: one that is wanted.
            path: of the sample's file, or its name.
            tiles: draws it, (title, RGB picture) side by side; called when it is written.
        """
        kept = _Kept(score, path, tiles)
        among_best = self._among_best(score)
        if self._among_worst(score):
            bisect.insort(self._worst, kept, key=_score)
            del self._worst[self.number :]
        if among_best:
            bisect.insort(self._best, kept, key=_score)
            del self._best[: -self.number]

    def write(self, out: Path, rank: int = 0, processes: int = 1) -> None:
        """Writes the tiles of each as pictures, and a list of them, `<rank>.json`.

        Args:
            rank, processes: this one and how many there are: each writes its own, who reads puts them together.
        """
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"{rank}-*"):
            old.unlink()
        examples = []
        both = {kept.path: kept for kept in (*self._worst, *self._best)}
        for number, kept in enumerate(sorted(both.values(), key=_score)):
            written = []
            for title, tile in kept.tiles():
                file = out / f"{rank}-{number}-{title.split()[0].strip(':')}.jpg"
                _write_picture(file, tile)
                written.append({"title": title, "file": file.name})
            examples.append({"path": kept.path, "score": kept.score, "measure": self.measure, "tiles": written})
        text = json.dumps({"processes": processes, "number": self.number, "examples": examples}, indent=1)
        beside = out / f".{rank}.json.{os.getpid()}"
        beside.write_text(text)
        beside.replace(out / f"{rank}.json")

    def _among_worst(self, score: float) -> bool:
        return len(self._worst) < self.number or (self.number > 0 and score < self._worst[-1].score)

    def _among_best(self, score: float) -> bool:
        return len(self._best) < self.number or (self.number > 0 and score > self._best[0].score)


def _score(kept: _Kept) -> float:
    return kept.score


def _write_picture(path: Path, tile: NDArray[np.uint8]) -> None:
    if tile.shape[1] > _WIDTH:
        height = max(1, round(tile.shape[0] * _WIDTH / tile.shape[1]))
        tile = np.asarray(cv2.resize(tile, (_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)
    if not cv2.imwrite(str(path), tile[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85]):
        raise OSError(f"{path} could not be written; is the disk full?")

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from visionattn.segmentation.extremes import SegmentationExtremes

META = {"classes": ("sky", "road", "tree"), "palette": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]}
SIZE = (12, 17)


def sample_of(path: str, truth: np.ndarray, prediction: np.ndarray) -> SegDataSample:
    sample = SegDataSample(metainfo={"img_path": path})
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth)[None].long())
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(prediction)[None].long())
    return sample


def naive_miou(truth: np.ndarray, prediction: np.ndarray) -> float:
    scores = []
    for label in range(3):
        true = predicted = both = 0
        for t, p in zip(truth.ravel(), prediction.ravel(), strict=True):
            if t != 255:
                true, predicted, both = true + (t == label), predicted + (p == label), both + (t == p == label)
        if true + predicted:
            scores.append(both / (true + predicted - both))
    return 100 * sum(scores) / len(scores)


def evaluated(folder: Path, number: int, random: np.random.Generator) -> list[tuple[SegDataSample, float]]:
    samples = []
    for index in range(number):
        truth = random.choice([0, 1, 2, 255], SIZE)
        right = random.random(SIZE) < random.random()
        prediction = np.where(right & (truth != 255), truth, random.integers(0, 3, SIZE))
        path = str(folder / f"{index}.png")
        cv2.imwrite(path, random.integers(0, 256, (*SIZE, 3), np.uint8))
        samples.append((sample_of(path, truth, prediction), naive_miou(truth, prediction)))
    return samples


def test_the_best_and_the_worst_are_those_of_a_full_sort(tmp_path: Path) -> None:
    for seed in range(5):
        samples = evaluated(tmp_path, 23, np.random.default_rng(seed))
        extremes = SegmentationExtremes(3, META)
        for sample, _ in samples:
            extremes.look(sample)
        extremes.write(tmp_path / "out")
        written = json.loads((tmp_path / "out" / "0.json").read_text())
        ordered = sorted((score, sample.img_path) for sample, score in samples)
        expected = ordered[:3] + ordered[-3:]
        assert [example["path"] for example in written["examples"]] == [path for _, path in expected]
        np.testing.assert_allclose([example["score"] for example in written["examples"]], [s for s, _ in expected])
        files = [tile["file"] for example in written["examples"] for tile in example["tiles"]]
        # What an earlier evaluation wrote is gone.
        assert sorted([*files, "0.json"]) == sorted(path.name for path in (tmp_path / "out").iterdir())
        assert all(cv2.imread(str(tmp_path / "out" / file)) is not None for file in files)


def test_few_images_are_written_once_and_unlabelled_ones_not_at_all(tmp_path: Path) -> None:
    samples = evaluated(tmp_path, 3, np.random.default_rng(0))
    extremes = SegmentationExtremes(4, META)
    for sample, _ in samples:
        extremes.look(sample)
    extremes.look(sample_of("nothing.png", np.full(SIZE, 255), np.zeros(SIZE, np.int64)))
    extremes.write(tmp_path / "out", rank=1, processes=2)
    written = json.loads((tmp_path / "out" / "1.json").read_text())
    assert len(written["examples"]) == 3
    assert written["processes"] == 2
    titles = [tile["title"].split()[0] for tile in written["examples"][0]["tiles"]]
    assert titles == ["input", "truth", "prediction", "error"]

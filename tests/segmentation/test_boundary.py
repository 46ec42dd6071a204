from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from segmentation_samples import batch

from visionattn.registry import METRICS
from visionattn.segmentation.boundary import BoundaryFMetric, boundary_f

CLASSES = ("sky", "road", "tree", "car")


def naive(prediction, truth, tolerance, ignore_index):
    """The definition, one pixel after another and every pair of outline pixels."""
    height, width = truth.shape

    def lines(labels):
        found = {}
        for y in range(height):
            for x in range(width):
                for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                    if (
                        0 <= b < height
                        and 0 <= a < width
                        and ignore_index not in (truth[y, x], truth[b, a])
                        and labels[y, x] != labels[b, a]
                    ):
                        found.setdefault(int(labels[y, x]), set()).add((y, x))
        return found

    predicted, true = lines(prediction), lines(truth)
    scores = {}
    for label in sorted(set(predicted) | set(true)):
        ours, theirs = predicted.get(label, set()), true.get(label, set())
        near = [
            sum(any(math.dist(a, b) <= tolerance for b in other) for a in one) / len(one) if one else 0.0
            for one, other in ((ours, theirs), (theirs, ours))
        ]
        scores[label] = 2 * near[0] * near[1] / sum(near) if sum(near) else 0.0
    return scores


def regions(seed, shape=(17, 23), classes=4):
    """Labels in patches: the nearest of a few random points, and some ignored pixels in the truth."""
    rng = np.random.default_rng(seed)
    points, labels = rng.random((6, 2)) * shape, rng.integers(0, classes, 6)
    y, x = np.mgrid[: shape[0], : shape[1]]
    truth = labels[((y[..., None] - points[:, 0]) ** 2 + (x[..., None] - points[:, 1]) ** 2).argmin(-1)]
    prediction = np.roll(truth, tuple(rng.integers(-2, 3, 2)), (0, 1))
    prediction[rng.random(shape) < 0.03] = rng.integers(classes)
    return prediction, np.where(rng.random(shape) < 0.05, 255, truth)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, math.sqrt(2), 2.0, 5.0])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_definition(seed, tolerance):
    prediction, truth = regions(seed)
    assert boundary_f(prediction, truth, tolerance, 255) == pytest.approx(naive(prediction, truth, tolerance, 255))


def test_known_case():
    """A square moved by two pixels: nothing matches at a distance of 1, everything at 3."""
    truth = np.zeros((40, 40), int)
    truth[10:20, 10:20] = 1
    prediction = np.roll(truth, 2, 1)
    assert boundary_f(truth, truth, 0.1, 255) == {0: 1.0, 1: 1.0}
    assert boundary_f(prediction, truth, 3, 255) == {0: 1.0, 1: 1.0}
    assert boundary_f(prediction, truth, 1, 255)[1] == pytest.approx(20 / 36)  # of the horizontal sides, 9 + 1 each
    assert boundary_f(np.zeros_like(truth), truth, 3, 255) == {0: 0.0, 1: 0.0}
    assert boundary_f(np.zeros_like(truth), np.zeros_like(truth), 3, 255) == {}


def score(metric, *batches):
    metric.dataset_meta = {"classes": CLASSES}
    for samples in batches:
        metric.process({}, samples)
    return metric.evaluate(size=sum(map(len, batches)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_mean_over_images_for_any_batch_size(size):
    samples = batch(1)
    images = []
    for sample in samples:
        truth, prediction = (sample[key]["data"][0].numpy() for key in ("gt_sem_seg", "pred_sem_seg"))
        scores = naive(prediction, truth, 0.1 * math.hypot(*truth.shape), 255)
        images.append(sum(scores.values()) / len(scores))
    metric = BoundaryFMetric(tolerance=0.1)
    means = score(metric, *[samples[start : start + size] for start in range(0, 5, size)])
    assert means == score(BoundaryFMetric(tolerance=0.1), samples)
    assert means == {"mBF": pytest.approx(100 * sum(images) / 5)}
    assert [image["BF"] for image in metric.images] == pytest.approx([100 * value for value in images])
    assert metric.images[2]["image"] == "images/2.jpg"


def test_perfect_prediction_and_void_scores_perfectly():
    samples = batch(2, ignored=0.0)
    for sample in samples:
        sample["gt_sem_seg"]["data"] = sample["pred_sem_seg"]["data"].clone()
        sample["gt_sem_seg"]["data"][:, :3] = 255
    assert score(METRICS.build({"type": "visionattn.BoundaryFMetric", "prefix": "val"}), samples) == {"val/mBF": 100.0}


def test_table_and_image_without_outline():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    flat = {"data": torch.zeros(1, 5, 6, dtype=torch.long)}
    metric = BoundaryFMetric()
    means = score(metric, [*batch(0), {"gt_sem_seg": flat, "pred_sem_seg": flat}])
    logger.removeHandler(handler)
    assert means == score(BoundaryFMetric(), batch(0))
    assert metric.images[-1] == {"image": None, "BF": None}
    assert records[-1].splitlines()[-1] == f"mBF {means['mBF'] / 100:.4f}"
    assert all(name in records[-1] for name in CLASSES)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="tolerance=0 must be above 0"):
        BoundaryFMetric(tolerance=0)
    samples = batch(3)
    samples[1]["gt_sem_seg"]["data"][0, 2, 6] = 9
    with pytest.raises(ValueError, match=r"masks/1\.png: the truth holds 9 at row 2, column 6; allowed are 0\.\.3"):
        score(BoundaryFMetric(), samples)

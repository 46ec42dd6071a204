from __future__ import annotations

import logging

import mmseg.evaluation
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from visionattn.registry import METRICS
from visionattn.segmentation.metric import IoUMetric

CLASSES = ("sky", "road", "tree", "car", "never")


@pytest.fixture
def log():
    """What the run's logger was told."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def batch(seed, number=5, classes=4, ignored=0.2):
    """Samples as mmengine's evaluator gives them to a metric, of odd sizes that differ."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(number):
        shape = (1, 7 + index, 13 - index)
        truth = rng.integers(0, classes, shape)
        prediction = np.where(rng.random(shape) < 0.5, truth, rng.integers(0, classes, shape))
        truth = np.where(rng.random(shape) < ignored, 255, truth)
        samples.append(
            {
                "gt_sem_seg": {"data": torch.from_numpy(truth)},
                "pred_sem_seg": {"data": torch.from_numpy(prediction)},
                "seg_map_path": f"masks/{index}.png",
                "img_path": f"images/{index}.jpg",
            }
        )
    return samples


def score(metric, *batches, classes=CLASSES):
    metric.dataset_meta = {"classes": classes}
    for samples in batches:
        metric.process({}, samples)
    return metric.evaluate(size=sum(len(samples) for samples in batches))


def naive(samples, num_classes):
    """Percent, by counting one pixel after another."""
    right, predicted, true = ([0] * num_classes for _ in range(3))
    for sample in samples:
        pixels = zip(
            sample["gt_sem_seg"]["data"].flatten().tolist(),
            sample["pred_sem_seg"]["data"].flatten().tolist(),
            strict=True,
        )
        for t, p in pixels:
            if t == 255:
                continue
            true[t] += 1
            predicted[p] += 1
            right[t] += t == p
    iou = [r / (p + t - r) for r, p, t in zip(right, predicted, true, strict=True) if p + t - r]
    accuracy = [r / t for r, t in zip(right, true, strict=True) if t]
    return {
        "mIoU": 100 * sum(iou) / len(iou),
        "mAcc": 100 * sum(accuracy) / len(accuracy),
        "aAcc": 100 * sum(right) / sum(true),
    }


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_naive_count(seed):
    samples = batch(seed)
    assert score(IoUMetric(), samples) == pytest.approx(naive(samples, 5), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_equals_mmseg(seed):
    samples = batch(seed)
    theirs = score(mmseg.evaluation.IoUMetric(), samples)
    ours = score(IoUMetric(), samples)
    assert theirs.keys() == ours.keys()
    for name in theirs:
        assert ours[name] == pytest.approx(theirs[name], abs=0.006)  # mmseg rounds to two digits


def test_batches_do_not_matter():
    samples = batch(1)
    assert score(IoUMetric(), samples) == score(IoUMetric(), samples[:2], samples[2:3], samples[3:])


def test_perfect_prediction_and_void_scores_perfectly(log):
    samples = batch(2, ignored=0.0)
    for sample in samples:
        sample["gt_sem_seg"]["data"] = sample["pred_sem_seg"]["data"].clone()
        sample["gt_sem_seg"]["data"][:, :3] = 255  # a wrong guess there costs nothing
    assert score(IoUMetric(), samples) == {"mIoU": 100.0, "mAcc": 100.0, "aAcc": 100.0}
    assert log[-1].splitlines()[-1] == "mIoU 1.0000"


def test_class_that_is_predicted_but_never_there_counts_as_zero():
    truth, prediction = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, 4, 4, dtype=torch.long)
    prediction[0, 0, 0] = 1
    samples = [{"gt_sem_seg": {"data": truth}, "pred_sem_seg": {"data": prediction}}]
    assert score(IoUMetric(), samples)["mIoU"] == pytest.approx(100 * (15 / 16 + 0) / 2)


@pytest.mark.parametrize(("value", "where"), [(5, "truth"), (254, "truth"), (-1, "truth"), (5, "prediction")])
def test_label_outside_the_classes_is_refused(value, where):
    samples = batch(3)
    key = {"truth": "gt_sem_seg", "prediction": "pred_sem_seg"}[where]
    samples[1][key]["data"][0, 2, 6] = value
    with pytest.raises(
        ValueError, match=rf"^masks/1\.png: the {where} holds {value} at row 2, column 6; allowed are 0\.\.4"
    ) as error:
        score(IoUMetric(), samples)
    assert "\n" not in str(error.value)


def test_truth_of_another_size_is_refused():
    samples = batch(4)
    samples[0]["gt_sem_seg"]["data"] = samples[0]["gt_sem_seg"]["data"][:, :5]
    with pytest.raises(ValueError, match=r"masks/0\.png: the prediction is \[7, 13\] but the truth \[5, 13\]"):
        score(IoUMetric(), samples)


def test_areas_are_exact_where_float32_is_not():
    """2^24 + 1 pixels of one class: mmseg's float32 sum says 2^24."""
    metric = IoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    big = torch.tensor([[2**24, 0], [2**24, 0], [2**24, 0]])
    one = torch.tensor([[0, 1], [1, 1], [1, 1]])
    metric.results = [big, one]
    assert metric.evaluate(size=2)["aAcc"] == 100 * (2**24 + 1) / (2**24 + 2)


def test_table_and_line(log):
    samples = batch(5)
    means = score(IoUMetric(), samples)
    lines = log[-1].splitlines()
    assert lines[-1] == f"mIoU {means['mIoU'] / 100:.4f}"
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:5]] for line in lines if "|" in line
    }
    assert set(rows) >= {"class", *CLASSES}
    assert rows["class"] == ["IoU", "accuracy", "% of pixels"]
    assert rows["never"] == ["-", "-", "0.00"]
    ious = [float(rows[name][0]) for name in CLASSES[:4]]
    assert np.mean(ious) == pytest.approx(means["mIoU"], abs=0.006)
    assert sum(float(rows[name][2]) for name in CLASSES) == pytest.approx(100, abs=0.03)
    assert log[-1].isascii()


def test_names_are_shown_as_they_are(log):
    """rich would read [bold] as a command, and cut what is long."""
    names = ("[bold]sky[/bold]", "x" * 90, "tree", "car", "never")
    score(IoUMetric(), batch(0), classes=names)
    assert all(name in log[-1] for name in names)


def test_registry_and_prefix():
    metric = METRICS.build({"type": "visionattn.IoUMetric", "prefix": "val"})
    assert set(score(metric, batch(0))) == {"val/mIoU", "val/mAcc", "val/aAcc"}


def test_padded_samples_of_a_distributed_run_are_dropped():
    samples = batch(6)
    metric = IoUMetric()
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, [*samples, samples[0]])
    assert metric.evaluate(size=len(samples)) == score(IoUMetric(), samples)


def test_ignore_index():
    samples = batch(7, ignored=0.0)
    ours = score(IoUMetric(ignore_index=3), samples)
    for sample in samples:
        truth = sample["gt_sem_seg"]["data"]
        truth[truth == 3] = 255
    assert ours == score(IoUMetric(), samples)

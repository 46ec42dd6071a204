from __future__ import annotations

import json
import logging
import pickle

import mmseg.evaluation
import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from segmentation_samples import batch
from two_processes import run_in_processes

from visionattn.data.dealing import dealt, repeated
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
    dice = [2 * r / (p + t) for r, p, t in zip(right, predicted, true, strict=True) if p + t]
    iou = [r / (p + t - r) for r, p, t in zip(right, predicted, true, strict=True) if p + t - r]
    accuracy = [r / t for r, t in zip(right, true, strict=True) if t]
    return {
        "mIoU": 100 * sum(iou) / len(iou),
        "mAcc": 100 * sum(accuracy) / len(accuracy),
        "aAcc": 100 * sum(right) / sum(true),
        "mDice": 100 * sum(dice) / len(dice),
    }


@pytest.mark.parametrize("seed", range(4))
def test_equals_a_naive_count(seed):
    samples = batch(seed)
    assert score(IoUMetric(), samples) == pytest.approx(naive(samples, 5), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_equals_mmseg(seed):
    samples = batch(seed)
    theirs = score(mmseg.evaluation.IoUMetric(iou_metrics=["mIoU", "mDice", "mFscore"]), samples)
    ours = score(IoUMetric(), samples)
    assert set(theirs) - set(ours) == {"mFscore", "mPrecision", "mRecall"}
    assert theirs["mFscore"] == theirs["mDice"]
    for name in ours:
        assert ours[name] == pytest.approx(theirs[name], abs=0.006)  # mmseg rounds to two digits


@pytest.mark.parametrize("size", range(1, 8))
def test_batches_do_not_matter(size):
    samples = batch(1, number=7)
    batches = [samples[start : start + size] for start in range(0, 7, size)]
    assert score(IoUMetric(), *batches) == score(IoUMetric(), samples)


def test_perfect_prediction_and_void_scores_perfectly(log):
    samples = batch(2, ignored=0.0)
    for sample in samples:
        sample["gt_sem_seg"]["data"] = sample["pred_sem_seg"]["data"].clone()
        sample["gt_sem_seg"]["data"][:, :3] = 255  # a wrong guess there costs nothing
    assert score(IoUMetric(), samples) == dict.fromkeys(("mIoU", "mAcc", "aAcc", "mDice"), 100.0)
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
    """2^24 + 1 pixels of one class: a float32 sum says 2^24."""
    metric = IoUMetric()
    metric.dataset_meta = {"classes": ("a", "b")}
    means = metric.means(torch.tensor([[2**24 + 1, 0], [1, 0]]), [])
    assert means["aAcc"] == 100 * (2**24 + 1) / (2**24 + 2)


def test_table_and_line(log):
    samples = batch(5)
    means = score(IoUMetric(), samples)
    lines = log[-1].splitlines()
    assert lines[-1] == f"mIoU {means['mIoU'] / 100:.4f}"
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:6]] for line in lines if "|" in line
    }
    assert set(rows) >= {"class", *CLASSES}
    assert rows["class"] == ["IoU", "accuracy", "Dice", "% of pixels"]
    assert rows["never"] == ["-", "-", "-", "0.00"]
    ious = [float(rows[name][0]) for name in CLASSES[:4]]
    assert np.mean(ious) == pytest.approx(means["mIoU"], abs=0.006)
    assert sum(float(rows[name][3]) for name in CLASSES) == pytest.approx(100, abs=0.03)
    assert log[-1].isascii()


def test_names_are_shown_as_they_are(log):
    """rich would read [bold] as a command, and cut what is long."""
    names = ("[bold]sky[/bold]", "x" * 90, "tree", "car", "never")
    score(IoUMetric(), batch(0), classes=names)
    assert all(name in log[-1] for name in names)


def test_registry_and_prefix():
    metric = METRICS.build({"type": "visionattn.IoUMetric", "prefix": "val"})
    assert set(score(metric, batch(0))) == {"val/mIoU", "val/mAcc", "val/aAcc", "val/mDice"}


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


def of_processes(samples, processes, monkeypatch, out=None):
    """What each process's metric says, given what mmengine's sampler deals out; their exchange is played."""
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda rank=rank: (rank, processes))
        shares.append([samples[index] for index in DefaultSampler(samples, shuffle=False)])
    metrics = [IoUMetric(out=out) for _ in shares]
    for metric, share in zip(metrics, shares, strict=True):
        metric.dataset_meta = {"classes": CLASSES}
        metric.process({}, share)
    numbers = [len(share) for share in shares]
    repetitions = repeated(numbers, len(samples))
    total = metrics[0].zero()
    for metric, some in zip(metrics, repetitions, strict=True):
        if some:
            metric._last = None
        metric._add_last()
        total += metric.zero() if metric._sum is None else metric._sum
    kept = [metric.results[: len(metric.results) - some] for metric, some in zip(metrics, repetitions, strict=True)]
    return metrics[0].means(total, dealt(kept)), metrics[0]


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 7, 9])
@pytest.mark.parametrize("number", [1, 4, 7])
def test_processes_do_not_matter(processes, number, monkeypatch):
    """9 processes of one image each or none of their own: the sampler repeats up to eight of them."""
    samples = batch(2, number=number)
    whole = IoUMetric()
    means, metric = of_processes(samples, processes, monkeypatch)
    assert means == score(whole, samples)
    assert np.array_equal(metric.confusion, whole.confusion)
    assert metric.images == whole.images


@pytest.mark.parametrize(
    ("numbers", "size", "expected"),
    [
        ([3, 3], 6, [0, 0]),
        ([3, 3], 5, [0, 1]),
        ([2, 2, 2, 2], 5, [0, 1, 1, 1]),
        ([1, 1], 1, [0, 1]),
        ([3, 2], 5, [0, 0]),
    ],
)
def test_repetitions(numbers, size, expected):
    assert repeated(numbers, size) == expected


def test_two_processes_agree_with_one(tmp_path):
    """gloo: five samples, so that one is repeated; both processes hear the same means, one writes."""
    samples = batch(3)
    whole = IoUMetric(out=tmp_path / "one")
    expected = score(whole, samples)
    for means in run_in_processes("metric_process", 2, tmp_path):
        assert means == expected
    for name in ("classes.json", "images.json"):
        assert (tmp_path / "both/0" / name).read_text() == (tmp_path / "one" / name).read_text()
    assert not (tmp_path / "both/1").exists()


def test_an_image_seen_twice_is_refused():
    metric = IoUMetric()
    metric.dataset_meta = {"classes": CLASSES}
    metric.process({}, batch(0) * 2)
    with pytest.raises(ValueError, match="10 images were evaluated of a dataset of 5; evaluate each once"):
        metric.evaluate(size=5)


def test_memory_does_not_grow_with_the_images():
    """150 classes: what is pickled of the metric grows by a few hundred bytes an image, not by a matrix (180 kB)."""
    metric = IoUMetric()
    metric.dataset_meta = {"classes": [str(i) for i in range(150)]}
    metric.process({}, batch(0, number=5))
    before = len(pickle.dumps(metric))
    for _ in range(20):
        metric.process({}, batch(0, number=5))
    assert (len(pickle.dumps(metric)) - before) / 100 < 300
    assert metric._sum.shape == (150, 150)


def test_every_evaluation_begins_anew():
    metric = IoUMetric()
    first = score(metric, batch(0))
    assert score(metric, batch(1)) == score(IoUMetric(), batch(1)) != first


def test_nothing_to_evaluate():
    """A mean over nothing is nan, as in mmseg, and no error."""
    means = score(IoUMetric(), [])
    assert all(np.isnan(value) for value in means.values())
    ignored = batch(0, ignored=1.1)
    assert all(np.isnan(value) for value in score(IoUMetric(), ignored).values())


def test_files(tmp_path):
    samples = batch(8)
    samples[2]["gt_sem_seg"]["data"].fill_(255)
    metric = IoUMetric(out=tmp_path / "deep" / "evaluation")
    palette = np.arange(15, dtype=np.uint8).reshape(5, 3)
    metric.dataset_meta = {"classes": CLASSES, "palette": palette}
    metric.process({}, samples)
    means = metric.evaluate(size=5)
    out = tmp_path / "deep" / "evaluation"
    assert sorted(file.name for file in out.iterdir()) == ["classes.json", "confusion_matrix.npy", "images.json"]

    confusion = np.load(out / "confusion_matrix.npy")
    naive_matrix = np.zeros((5, 5), int)
    for sample in samples:
        for t, p in zip(
            sample["gt_sem_seg"]["data"].flatten().tolist(),
            sample["pred_sem_seg"]["data"].flatten().tolist(),
            strict=True,
        ):
            if t != 255:
                naive_matrix[t, p] += 1
    assert confusion.dtype == np.int64
    assert np.array_equal(confusion, naive_matrix)

    report = json.loads((out / "classes.json").read_text())
    assert {name: report[name] for name in means} == means
    assert report["images"] == 5
    assert [entry["name"] for entry in report["classes"]] == list(CLASSES)
    assert report["classes"][1]["color"] == [3, 4, 5]
    assert report["classes"][4] == {
        "name": "never", "color": [12, 13, 14], "IoU": None, "accuracy": None, "precision": None, "Dice": None,
        "pixels": 0, "predicted": 0,
    }  # fmt: skip
    for index, entry in enumerate(report["classes"][:4]):
        assert entry["pixels"] == naive_matrix[index].sum()
        assert entry["predicted"] == naive_matrix[:, index].sum()
        assert entry["precision"] == pytest.approx(100 * naive_matrix[index, index] / entry["predicted"])

    images = json.loads((out / "images.json").read_text())
    assert [image["image"] for image in images] == [f"images/{index}.jpg" for index in range(5)]
    for sample, image in zip(samples, images, strict=True):
        if image["mask"] == "masks/2.png":
            assert image["mIoU"] is image["aAcc"] is None
            assert image["pixels"] == 0
        else:
            alone = naive([sample], 5)
            assert image["mIoU"] == pytest.approx(alone["mIoU"])
            assert image["aAcc"] == pytest.approx(alone["aAcc"])


def test_evaluator_drives_it():
    evaluator = Evaluator([IoUMetric()])
    evaluator.dataset_meta = {"classes": CLASSES}
    samples = batch(0)
    assert evaluator.offline_evaluate(samples, chunk_size=2) == score(IoUMetric(), samples)

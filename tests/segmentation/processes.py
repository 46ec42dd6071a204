"""What tests run in several processes; see `two_processes`."""

from __future__ import annotations

from pathlib import Path

from mmengine.dataset import DefaultSampler
from segmentation_samples import batch

from visionattn.segmentation.metric import IoUMetric


def metric_process(folder: str, rank: int) -> dict[str, float]:
    """IoUMetric of this process's share of `batch(3)`, one sample at a time."""
    samples = batch(3)
    metric = IoUMetric(out=Path(folder) / "both" / str(rank))
    metric.dataset_meta = {"classes": ("sky", "road", "tree", "car", "never")}
    for index in DefaultSampler(samples, shuffle=False):
        metric.process({}, [samples[index]])
    return metric.evaluate(size=len(samples))

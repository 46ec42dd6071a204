"""The data set of a config that is evaluated, for what makes one image ready as its images are."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config


def evaluated_dataset(config: Config) -> dict[str, Any]:
    """The config of the data set for tests, or else for validation; {} if none.

    Without wrappers: what RepeatDataset repeats, the first of those that ConcatDataset joins.
    """
    loader = config.get("test_dataloader") or config.get("val_dataloader") or {}
    dataset = loader.get("dataset") or {}
    while inner := dataset.get("dataset") or next(iter(dataset.get("datasets") or ()), None):
        dataset = inner
    return dict(dataset)

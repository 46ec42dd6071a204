"""The data set of a config that is evaluated, for what makes one image ready as its images are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def prediction_pipeline(config: Config) -> list[dict[str, Any]]:
    """The steps that make one image ready as the evaluated ones are, without those that load annotations.

    Raises:
        ValueError: the config has none.
    """
    pipeline = evaluated_dataset(config).get("pipeline") or config.get("test_pipeline")
    if not pipeline:
        raise ValueError("the config has neither test_dataloader.dataset.pipeline nor test_pipeline")
    return _without_annotations(pipeline)


def _without_annotations(pipeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Also inside TestTimeAug, whose steps are lists of choices."""
    steps = [dict(step) for step in pipeline if not _loads_annotations(step)]
    for step in steps:
        if str(step["type"]).rpartition(".")[2] == "TestTimeAug":
            groups = (_without_annotations(choices) for choices in step["transforms"])
            step["transforms"] = [choices for choices in groups if choices]
    return steps


def _loads_annotations(step: Mapping[str, Any]) -> bool:
    return str(step["type"]).rpartition(".")[2] in ("LoadAnnotations", "LoadLabels")

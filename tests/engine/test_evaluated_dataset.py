"""The data set that is evaluated, whatever it is wrapped in."""

from __future__ import annotations

from mmengine.config import Config

from visionattn.engine.evaluated_dataset import evaluated_dataset

PLAIN, OTHER = {"type": "One", "pipeline": [1]}, {"type": "Two"}


def config(dataset: object, loader: str = "test_dataloader") -> Config:
    return Config({"val_dataloader": {"dataset": OTHER}, loader: {"dataset": dataset}})


def test_wrappers_are_taken_off() -> None:
    repeated = {"type": "RepeatDataset", "times": 2, "dataset": PLAIN}
    joined = {"type": "ConcatDataset", "datasets": [repeated, OTHER]}
    for wrapped in (PLAIN, repeated, joined, {"type": "ClassBalancedDataset", "dataset": joined}):
        assert evaluated_dataset(config(wrapped)) == PLAIN


def test_validation_where_there_is_no_test() -> None:
    assert evaluated_dataset(config(PLAIN, "val_dataloader")) == PLAIN
    assert evaluated_dataset(Config({})) == {}

"""The data set that is evaluated, whatever it is wrapped in."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from visionattn.engine.evaluated_dataset import evaluated_dataset, prediction_pipeline

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


def test_one_image_gets_all_steps_but_those_for_annotations() -> None:
    load, resize = {"type": "mmcv.LoadImageFromFile"}, {"type": "Resize", "scale": 2}
    flips = [{"type": "Flip", "prob": 0.0}, {"type": "Flip", "prob": 1.0}]
    augment = {"type": "mmcv.TestTimeAug", "transforms": [flips, [{"type": "mmseg.LoadAnnotations"}], [resize]]}
    steps = [load, {"type": "mmseg.LoadAnnotations"}, resize, {"type": "LoadLabels"}, augment]
    wanted = [load, resize, {"type": "mmcv.TestTimeAug", "transforms": [flips, [resize]]}]
    assert prediction_pipeline(config({"type": "One", "pipeline": steps})) == wanted
    assert prediction_pipeline(Config({"test_pipeline": [load]})) == [load]
    assert len(steps) == 5
    assert len(augment["transforms"]) == 3
    with pytest.raises(ValueError, match=r"neither test_dataloader\.dataset\.pipeline nor test_pipeline"):
        prediction_pipeline(Config({}))

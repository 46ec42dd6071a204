"""The recipe of made-up scenes alone: a fresh pair in every draw, its network learns, any pair is predicted on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.dataset import pseudo_collate

from visionattn.engine.config import load_config
from visionattn.registry import DATASETS, METRICS, MODELS

FILES = sorted((Path(__file__).parents[2] / "configs" / "stereo").glob("*_madeup-*.py"))


def test_files_were_found() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_parts_fit_together(path: Path) -> None:
    config = load_config(path)
    torch.manual_seed(0)
    train, val = (DATASETS.build(config[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    batch = pseudo_collate([train[0] for _ in range(config.train_dataloader.batch_size)])
    height, width = map(int, path.stem.rpartition("-")[2].split("x"))
    assert {view.shape for side in batch["inputs"].values() for view in side} == {(3, height, width)}
    assert not torch.equal(*batch["inputs"]["left"][:2])
    assert config.model.network.max_disparity == config.model.loss.max_disparity == 192
    assert train.seed != val.seed

    small = {side: [view[:, :48, :96] for view in views] for side, views in batch["inputs"].items()}
    for sample in batch["data_samples"]:
        sample.set_data({name: value[:48, :96] for name, value in sample.items()})
    model = MODELS.build(config.model).train()
    data = model.data_preprocessor({**batch, "inputs": small}, training=True)
    model(**data, mode="loss")["loss_disparity"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []

    with torch.no_grad():
        predicted = model.eval()(**data, mode="predict")
    assert [sample.predicted.shape for sample in predicted] == [(48, 96)] * len(predicted)
    metric = METRICS.build(config.val_evaluator)
    metric.process({}, [sample.to_dict() for sample in predicted])
    assert metric.evaluate(len(predicted))["visionattn/EPE"] >= 0

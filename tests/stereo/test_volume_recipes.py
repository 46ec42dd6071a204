"""The recipes of PSMNet and GwcNet: published numbers; their transforms, network, loss and metric on made-up pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import Compose

from visionattn.engine.config import load_config
from visionattn.registry import DATASETS, METRICS, MODELS

FOLDER = Path(__file__).parents[2] / "configs" / "stereo"
FILES = sorted([*FOLDER.glob("*psmnet*.py"), *FOLDER.glob("gwcnet*.py")])
SMALL = {
    "type": "TimmBackbone",
    "model_name": "resnet18",
    "timm_options": {"channels": (8, 8, 8, 8), "zero_init_last": False},
}


def test_files_were_found() -> None:
    assert len(FILES) == 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_numbers_are_the_published_ones(path: Path) -> None:
    config = load_config(path)
    processes, each = map(int, path.stem.split("_")[1].split("-")[0].split("xb"))
    batch = processes * each
    assert config.train_dataloader.batch_size == each
    gwcnet, kitti = path.stem.startswith("gwcnet"), "kitti" in path.stem
    assert batch == (16 if gwcnet and not kitti else 12)
    epochs, pairs = (300, 180) if kitti else (16 if gwcnet else 10, 35454)
    assert abs(config.train_cfg.max_iters - epochs * pairs / batch) <= 1
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ("Adam", 1e-3)
    assert tuple(config.model.loss.weights) == ((0.5,) * gwcnet + (0.5, 0.7, 1.0))
    assert config.model.loss.get("max_disparity") == (None if kitti and not gwcnet else 192)
    image_pass = config.train_dataloader.dataset.get("image_pass")
    assert image_pass == (None if kitti else "finalpass" if gwcnet else "cleanpass")
    assert config.test_dataloader.dataset.get("image_pass") == image_pass
    assert config.test_evaluator.protocol == ("kitti" if kitti else "gwcnet" if gwcnet else "psmnet")
    assert config.val_evaluator.protocol == ("kitti" if kitti else "visionattn")
    assert config.default_hooks.checkpoint.save_best == f"{config.val_evaluator.protocol}/EPE"


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """A pair large enough for every crop."""
    source = {"type": "visionattn.MadeUpStereo", "scenes": 1, "height": 520, "width": 960, "max_disparity": 64.0}
    return DATASETS.build({**source, "transforms": []}).raw(0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_trains_and_predicts(path: Path, raw: dict[str, Any]) -> None:
    config = load_config(path)
    network = config.model.network
    network.max_disparity = 16
    if network.type == "visionattn.PSMNet":
        network.backbone = SMALL  # its own features take 256 pixels a side and seconds
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    sample = Compose(config.train_dataloader.dataset.transforms)(dict(raw))
    assert sample["inputs"]["left"].shape == (3, 256, 512)

    batch = {"inputs": {name: [view[:, :50, :70]] * 2 for name, view in sample["inputs"].items()}}
    truth = sample["data_samples"]
    truth.set_data({name: value[:50, :70] for name, value in truth.items()})
    data = model.data_preprocessor({**batch, "data_samples": [truth, truth]}, training=True)
    loss = model(**data, mode="loss")["loss_disparity"]
    loss.backward()
    assert torch.isfinite(loss)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []

    tested = Compose(config.test_dataloader.dataset.transforms)(dict(raw))
    assert tested["inputs"]["left"].shape == (
        3,
        *((512, 960) if config.test_evaluator.protocol == "gwcnet" else (520, 960)),
    )
    with torch.no_grad():
        predicted = model.eval()(**model.data_preprocessor({**batch, "data_samples": [truth, truth]}), mode="predict")
    assert [sample.predicted.shape for sample in predicted] == [(50, 70)] * 2
    metric = METRICS.build(config.test_evaluator)
    metric.process({}, [sample.to_dict() for sample in predicted])
    assert metric.evaluate(2)[f"{config.test_evaluator.protocol}/EPE"] >= 0


def test_attention_is_all_that_differs_and_can_be_moved() -> None:
    (plain,) = FOLDER.glob("psmnet_*sceneflow*.py")
    for name in ("ea", "nl"):
        (path,) = FOLDER.glob(f"{name}-psmnet*.py")
        config = load_config(path)
        del config.model.network["attention"]
        assert config.to_dict() == load_config(plain).to_dict()
        moved = {"model.network.attention.spp": None, "model.network.attention.hourglass.type": "EfficientAttention"}
        network = MODELS.build(load_config(path, {**moved, "model.network.max_disparity": 16}).model.network)
        assert set(network.attention) == {"hourglass"}

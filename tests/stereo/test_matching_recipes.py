"""The recipes of GMStereo and RAFT-Stereo: their transforms, network, loss and metric run on a made-up pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.dataset import Compose

import visionattn
from visionattn.engine.config import load_config
from visionattn.registry import DATASETS, METRICS, MODELS

FOLDER = Path(__file__).parents[2] / "configs" / "stereo"
FILES = sorted([*FOLDER.glob("gmstereo*.py"), *FOLDER.glob("raft-stereo*.py")])
PUBLISHED_BATCH = {"scale1": 64, "scale1-efficient": 64, "scale2": 32, "scale2-refine3": 16, "raft": 8}
SMALLER: dict[str, dict[str, Any]] = {
    "visionattn.GMStereo": {"layers": 1, "expansion": 1},
    "visionattn.RAFTStereo": {"iterations": 2, "training_iterations": 2},
}


def test_files_were_found() -> None:
    assert len(FILES) == 6


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_batch_is_the_published_one(path: Path) -> None:
    config = load_config(path)
    processes, each = map(int, path.stem.split("_")[1].split("-")[0].split("xb"))
    assert config.train_dataloader.batch_size == each
    kind = path.stem.split("_")[0].removeprefix("gmstereo-")
    assert processes * each == PUBLISHED_BATCH["raft" if kind.startswith("raft") else kind]
    assert config.optim_wrapper.optimizer.lr == config.param_scheduler[0].eta_max


@pytest.fixture(scope="module")
def raw() -> dict[str, Any]:
    """A pair large enough for every crop."""
    source = {"type": "visionattn.MadeUpStereo", "scenes": 1, "height": 400, "width": 800, "max_disparity": 64.0}
    return DATASETS.build({**source, "transforms": []}).raw(0)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_trains_and_predicts(path: Path, raw: dict[str, Any]) -> None:
    config = load_config(path)
    config.model.network.update(SMALLER[config.model.network.type])
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    height, width = map(int, path.stem.rsplit("-", 1)[1].split("x"))
    sample = Compose(config.train_dataloader.dataset.transforms)(dict(raw))
    assert sample["inputs"]["left"].shape == (3, height, width)

    # A part of the crop: all of it would cost seconds.
    inputs = {name: view[:, :90, :130] for name, view in sample["inputs"].items()}
    truth = sample["data_samples"]
    truth.set_data({name: value[:90, :130] for name, value in truth.items()})
    batch = {"inputs": {name: [view] for name, view in inputs.items()}, "data_samples": [truth]}
    data = model.data_preprocessor(batch, training=True)
    if config.model.network.type.endswith("RAFTStereo"):
        assert data["inputs"]["left"].abs().max() <= 1
    loss = model(**data, mode="loss")["loss_disparity"]
    loss.backward()
    assert torch.isfinite(loss)
    unused = {name.split(".")[2] for name, p in model.named_parameters() if p.grad is None}
    assert bool(unused) == bool(config.get("find_unused_parameters"))

    with torch.no_grad():
        (predicted,) = model.eval()(**model.data_preprocessor(batch), mode="predict")
    assert predicted.predicted.shape == (90, 130)
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    for cfg in evaluators:
        metric = METRICS.build(cfg)
        metric.process({}, [predicted.to_dict()])
        assert metric.evaluate(1)[f"{cfg.protocol}/EPE"] >= 0


def test_an_official_checkpoint_predicts_by_its_recipe(raw: dict[str, Any], tmp_path: Path) -> None:
    """The file holds the network alone, under "module."; the recipe wraps it."""
    network = MODELS.build({"type": "visionattn.RAFTStereo", "iterations": 2}).eval()
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, tmp_path / "official.pth")
    recipe = next(path for path in FILES if path.stem.startswith("raft-stereo_"))
    config = load_config(recipe, {"model.network.iterations": 2})
    left, right = (raw[name][:64, :96] for name in ("left", "right"))
    (sample,) = visionattn.predict(config, tmp_path / "official.pth", (left, right))
    views = (torch.from_numpy(view.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for view in (left, right))
    with torch.no_grad():
        wanted = network(*views)[-1][0]
    torch.testing.assert_close(sample.predicted, wanted, rtol=1e-4, atol=1e-4)

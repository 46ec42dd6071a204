"""The quickstart: its scenes are drawn, its network learns from them, nothing else is needed."""

from __future__ import annotations

import torch
from mmengine.dataset import pseudo_collate

from visionattn.engine.config import load_config
from visionattn.registry import DATASETS, HOOKS, METRICS, MODELS


def test_its_parts_fit_together() -> None:
    config = load_config("quickstart/stereo")
    torch.manual_seed(0)
    model = MODELS.build(config.model).train()
    train, val = (DATASETS.build(config[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    batch = pseudo_collate([train[0], train[0]])
    left = batch["inputs"]["left"]
    assert not torch.equal(left[0], left[1])  # every draw is a new scene
    assert torch.equal(val[0]["inputs"]["left"], val[0]["inputs"]["left"])
    for sample in batch["data_samples"]:
        assert 0 < sample.disparity.max() < model.network.planes * 4 == 48
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    losses["loss_disparity"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    (predicted,) = model.eval().test_step(pseudo_collate([val[0]]))
    assert predicted.predicted.shape == predicted.disparity.shape == (128, 256)
    assert "nonoccluded" in predicted


def test_it_ends_with_its_figures() -> None:
    config = load_config("quickstart/stereo")
    steps = config.train_cfg.max_iters
    assert config.train_cfg.val_interval == config.param_scheduler[-1].total_steps == steps
    assert [type(HOOKS.build(hook)).__name__ for hook in config.custom_hooks] == [
        "DisparityPictureHook",
        "ConstantBaselineHook",
    ]
    assert METRICS.build(config.val_evaluator).protocol.name == "visionattn"

"""What a config may switch on in a training: averaged weights, accumulation, clipping, early stopping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, MODELS
from tiny_run import tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from visionattn.engine.runner import Runner

PLAIN = {"param_scheduler": None, "val_dataloader": None, "val_cfg": None, "val_evaluator": None}


@MODELS.register_module()
class LinearModel(BaseModel):
    """No batch norm: a batch is the mean of its halves."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        scores = self.linear(x)
        return {"loss": F.cross_entropy(scores, y)} if mode == "loss" else list(scores.argmax(1))


@HOOKS.register_module()
class WatchHook(Hook):
    """Notes the model's weight after every training iteration and at every validation."""

    priority = "HIGHEST"
    trained: list[Tensor] = []
    validated: list[Tensor] = []

    def before_run(self, runner: Runner) -> None:
        WatchHook.trained, WatchHook.validated = [], []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        WatchHook.trained.append(runner.model.linear.weight.detach().clone())

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            WatchHook.validated.append(runner.model.linear.weight.detach().clone())


def _trained(tmp_path: Path, **changes: Any) -> Runner:
    runner = Runner.from_cfg(tiny_config(tmp_path, model={"type": "LinearModel"}, **changes))
    runner.train()
    return runner


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_validation_and_checkpoints_have_the_averaged_weights(tmp_path: Path) -> None:
    hooks = [{"type": "EMAHook", "momentum": 0.25}, {"type": "WatchHook"}]
    runner = _trained(tmp_path, custom_hooks=hooks)
    # mmengine's average begins as a copy of the first iteration's weights.
    average = WatchHook.trained[0]
    for weight in WatchHook.trained[1:4]:
        average = 0.75 * average + 0.25 * weight
    torch.testing.assert_close(WatchHook.validated[0], average)
    assert not torch.allclose(average, WatchHook.trained[3])
    for weight in WatchHook.trained[4:]:
        average = 0.75 * average + 0.25 * weight
    torch.testing.assert_close(WatchHook.validated[1], average)
    saved = torch.load(tmp_path / "iter_8.pth", weights_only=True)
    torch.testing.assert_close(saved["state_dict"]["linear.weight"], average)
    torch.testing.assert_close(saved["ema_state_dict"]["module.linear.weight"], WatchHook.trained[-1])
    torch.testing.assert_close(runner.model.linear.weight.detach(), WatchHook.trained[-1])


def test_accumulated_batches_are_one_large_batch(tmp_path: Path) -> None:
    weights = []
    for size, counts, iterations in ((8, 1, 2), (4, 2, 4)):
        config = tiny_config(tmp_path)
        loader = {
            **config.train_dataloader,
            "batch_size": size,
            "sampler": {"type": "InfiniteSampler", "shuffle": False},
        }
        runner = _trained(
            tmp_path / str(size),
            train_dataloader=loader,
            train_cfg={"type": "IterBasedTrainLoop", "max_iters": iterations},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.5}, "accumulative_counts": counts},
            **PLAIN,
        )
        weights.append(runner.model.linear.weight.detach())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("kind", ["OptimWrapper", "visionattn.AmpOptimWrapper"])
def test_gradients_are_clipped(kind: str, tmp_path: Path) -> None:
    wrapper = {"type": kind, "optimizer": {"type": "SGD", "lr": 1.0}, "clip_grad": {"max_norm": 1e-3}}
    _trained(tmp_path, optim_wrapper=wrapper, custom_hooks=[{"type": "WatchHook"}], **PLAIN)
    for before, after in zip(WatchHook.trained, WatchHook.trained[1:], strict=False):
        assert 1e-4 < (after - before).norm() < 1.01e-3


def test_training_stops_where_the_metric_does_not_rise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = {"type": "EarlyStoppingHook", "monitor": "tiny/accuracy", "patience": 2}
    runner = _trained(
        tmp_path,
        custom_hooks=[stop],
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": 100, "val_interval": 4},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.0}},
        param_scheduler=None,
    )
    # The first validation sets the score, the second and the third are no better.
    assert runner.iter == 12
    assert "the monitored metric did not improve in the last 2 records" in capsys.readouterr().out

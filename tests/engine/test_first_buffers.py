"""Two processes with plain batch norms validate the model that their checkpoint holds, and go on with their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from ranks import in_ranks
from tiny_segmentation import write_segmentation
from torch import Tensor

from visionattn.engine.runner import Runner
from visionattn.weights.reading import read_checkpoint


@HOOKS.register_module()
class RunningStatisticsHook(Hook):
    """Keeps the running statistics before, at and after a validation."""

    def before_train(self, runner: Any) -> None:
        self.seen: dict[str, dict[str, Tensor]] = {}

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.seen["before"] = _statistics(runner)

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.seen["at"] = _statistics(runner)

    def after_train(self, runner: Any) -> None:
        self.seen["after"] = _statistics(runner)


def _statistics(runner: Any) -> dict[str, Tensor]:
    state = runner._plain_model().state_dict()
    return {name: value.clone() for name, value in state.items() if "running" in name}


@pytest.mark.parametrize("ema", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "ema"])
def test_validation_is_of_the_model_that_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: bool) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))
    write_segmentation(tmp_path)

    def trained(rank: int) -> dict[str, dict[str, Tensor]]:
        config = Config.fromfile(str(tmp_path / "bands.py"))
        config.work_dir, config.launcher = str(tmp_path / "run"), "pytorch"
        config.runner_type = "visionattn.Runner"
        config.train_dataloader.batch_size = 2
        config.train_cfg.update(max_iters=2, val_interval=2)
        config.default_hooks.checkpoint.interval = 2
        config.model.backbone.norm_cfg = config.model.decode_head.norm_cfg = {"type": "BN"}
        config.custom_hooks = [{"type": "RunningStatisticsHook"}]
        if ema:
            config.custom_hooks.append({"type": "EMAHook", "momentum": 0.5})
        runner = Runner.from_cfg(config)
        runner.train()
        return next(hook for hook in runner.hooks if isinstance(hook, RunningStatisticsHook)).seen

    first, second = (process.result for process in in_ranks(trained, tmp_path))
    saved = read_checkpoint(tmp_path / "run" / "iter_2.pth")["state_dict"]
    assert first["at"].keys() == second["at"].keys()
    for name, value in first["at"].items():
        torch.testing.assert_close(second["at"][name], value, rtol=0, atol=0)
        torch.testing.assert_close(saved[name], value, rtol=0, atol=0)
    for seen in (first, second):
        torch.testing.assert_close(seen["after"], seen["before"], rtol=0, atol=0)
    assert any(not torch.equal(first["before"][name], second["before"][name]) for name in first["before"])

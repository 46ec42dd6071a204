"""Performers in training: when features are redrawn, the same in a resumed run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, MODELS
from random_run import random_config
from ranks import in_ranks
from tiny_run import TinyModel
from torch import Tensor, nn

from visionattn.attention.performer import Performer
from visionattn.engine.launch import leave_processes
from visionattn.engine.runner import Runner


@MODELS.register_module()
class PerformerModel(TinyModel):
    """The tiny model and two Performers whose answer is added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Performer(3, num_heads=1, num_features=4, redraw_interval=4)
        self.second = Performer(3, num_heads=1, num_features=4, redraw_interval=None)

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        mixed: nn.Module | Tensor = self.second(self.first(x[:, None]))[:, 0]
        return super().forward(x + mixed, y, mode)


@HOOKS.register_module()
class FeaturesHook(Hook):
    """Keeps what the features were in each iteration."""

    def before_train(self, runner: Any) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        model = getattr(runner.model, "module", runner.model)
        self.seen.append((model.first.projection_matrix.clone(), model.second.projection_matrix.clone()))


def test_features_change_on_time_and_as_in_an_uncut_run(tmp_path: Path) -> None:
    def features(name: str, resume_from: str | None = None) -> list[tuple[Tensor, Tensor]]:
        config = random_config(tmp_path / name)
        config.model = {"type": "PerformerModel"}
        config.custom_hooks = [{"type": "FeaturesHook"}]
        config.train_cfg.max_iters = 13
        config.randomness = {"seed": None}  # another seed in every run
        if resume_from is not None:
            config.load_from, config.resume = resume_from, True
        runner = Runner.from_cfg(config)
        runner.train()
        return next(hook for hook in runner.hooks if isinstance(hook, FeaturesHook)).seen

    uncut = features("uncut")
    changes = [i for i in range(1, 13) if not torch.equal(uncut[i][0], uncut[i - 1][0])]
    assert changes == [4, 8, 12]
    assert all(torch.equal(second, uncut[0][1]) for _, second in uncut)
    resumed = features("cut", str(tmp_path / "uncut" / "iter_8.pth"))
    assert len(resumed) == 5
    torch.testing.assert_close(resumed, uncut[8:], rtol=0, atol=0)


def test_every_process_has_the_same_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though each has its own seed."""
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))

    def rank(number: int) -> list[list[Tensor]]:
        config = random_config(tmp_path / "run", launcher="pytorch")
        config.model = {"type": "PerformerModel"}
        config.custom_hooks = [{"type": "FeaturesHook"}]
        config.train_cfg.max_iters = 10
        config.randomness = {"seed": 3, "diff_rank_seed": True}
        runner = Runner.from_cfg(config)
        runner.train()
        leave_processes()
        return [list(seen) for seen in next(hook for hook in runner.hooks if isinstance(hook, FeaturesHook)).seen]

    first, second = (found.result for found in in_ranks(rank, tmp_path / "ranks"))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    assert [i for i in range(1, 10) if not torch.equal(first[i][0], first[i - 1][0])] == [4, 8]

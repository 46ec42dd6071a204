"""Sharpness-aware steps of two processes, each with half of a batch, are those of one process with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.registry import MODELS
from ranks import in_ranks
from tiny_run import TinyModel, tiny_config
from torch import Tensor, nn

from visionattn.engine.launch import leave_processes
from visionattn.engine.runner import Runner
from visionattn.weights.reading import read_checkpoint

STEPS = 4
SHARDED = {"type": "visionattn.FullyShardedModel", "units": ["Linear"]}


@MODELS.register_module()
class ClimbingModel(TinyModel):
    """Without batch statistics; keeps the weights of every pass. In `slips`, rank 1 has a nan in the second step."""

    def __init__(self, slips: bool = False) -> None:
        super().__init__()
        self.norm = nn.Tanh()
        self.slips = slips
        self.seen: list[list[Tensor]] = []

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        found = super().forward(x, y, mode)
        if mode == "loss":
            self.seen.append([p.detach().clone() for p in self.parameters()])
            if self.slips and len(self.seen) == 4 and get_rank() == 1:
                found["loss"] = found["loss"] * float("nan")
        return found


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _config(work_dir: Path, batch_size: int, **changes: Any) -> Config:
    config = tiny_config(work_dir, model={"type": "ClimbingModel"}, param_scheduler=None, **changes)
    config.train_dataloader.batch_size = batch_size
    config.train_cfg.update(max_iters=STEPS, val_interval=STEPS)
    config.default_hooks.checkpoint.interval = 1
    config.optim_wrapper = {
        "type": "visionattn.SAMOptimWrapper",
        "rho": 0.5,
        "optimizer": {"type": "SGD", "lr": 0.3, "momentum": 0.9},
        "clip_grad": {"max_norm": 0.5},
    }
    return config


def _trained(config: Config) -> list[list[Tensor]]:
    """The weights of every pass."""
    runner = Runner.from_cfg(config)
    runner.train()
    return runner._plain_model().seen  # type: ignore[no-any-return]


def _state(folder: Path, step: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_checkpoint(folder / f"iter_{step}.pth")["state_dict"]
    return weights


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    def rank(number: int) -> list[list[Tensor]]:
        seen = _trained(_config(tmp_path / "ddp", 2, launcher="pytorch"))
        _trained(_config(tmp_path / "fsdp", 2, launcher="pytorch", model_wrapper_cfg=SHARDED))
        leave_processes()
        return seen

    first, second = (found.result for found in in_ranks(rank, tmp_path / "ranks"))
    one = _trained(_config(tmp_path / "one", 4))
    assert len(first) == len(second) == len(one) == 2 * STEPS
    torch.testing.assert_close(second, first, rtol=0, atol=0)  # one neighbour, to the last bit
    torch.testing.assert_close(first, one, rtol=1e-5, atol=1e-6)
    climbs = [torch.cat([(b - a).flatten() for a, b in zip(*one[i : i + 2], strict=True)]) for i in range(0, 8, 2)]
    assert [float(climb.norm()) for climb in climbs] == pytest.approx([0.5] * STEPS)
    for kind in ("ddp", "fsdp"):
        torch.testing.assert_close(_state(tmp_path / kind, STEPS), _state(tmp_path / "one", STEPS), rtol=0, atol=1e-6)


def test_a_pass_of_one_process_that_is_not_finite_leaves_the_step_of_all_out(tmp_path: Path) -> None:
    config = _config(tmp_path / "run", 2, launcher="pytorch")
    config.model.slips = True

    def rank(number: int) -> list[list[Tensor]]:
        seen = _trained(config)
        leave_processes()
        return seen

    first, second = (found.result for found in in_ranks(rank, tmp_path / "ranks"))
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    torch.testing.assert_close(first[4], first[2], rtol=0, atol=0)  # the third step begins where the second did
    assert any(not torch.equal(later, earlier) for later, earlier in zip(first[6], first[4], strict=True))
    for name, value in _state(tmp_path / "run", 1).items():
        assert torch.equal(value, _state(tmp_path / "run", 2)[name]), name

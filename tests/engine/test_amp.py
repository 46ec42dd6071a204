"""Mixed precision on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import OPTIM_WRAPPERS
from tiny_run import TinyModel, tiny_config

from visionattn.engine.amp import AmpOptimWrapper
from visionattn.engine.runner import Runner


def _optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def test_it_is_found_by_name_beside_mmengines() -> None:
    assert OPTIM_WRAPPERS.get("visionattn.AmpOptimWrapper") is AmpOptimWrapper
    assert OPTIM_WRAPPERS.get("mmengine.AmpOptimWrapper") is not AmpOptimWrapper


def test_a_step_is_torchs_own_under_autocast() -> None:
    torch.manual_seed(0)
    model, x, y = TinyModel(), torch.randn(5, 3), torch.tensor([0, 1, 1, 0, 1])
    other = TinyModel()
    other.load_state_dict(model.state_dict())
    wrapper, optimizer = AmpOptimWrapper(_optimizer(model), clip_grad={"max_norm": 0.1}), _optimizer(other)
    for _ in range(3):
        with wrapper.optim_context(model):
            scores = model.head(model.hidden(x))
            assert scores.dtype == torch.bfloat16
            loss = torch.nn.functional.cross_entropy(scores, y)
        wrapper.update_params(loss)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            expected = torch.nn.functional.cross_entropy(other.head(other.hidden(x)), y)
        expected.backward()
        torch.nn.utils.clip_grad_norm_([p for p in other.parameters() if p.grad is not None], 0.1)
        optimizer.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine.dtype == torch.float32
        assert torch.equal(mine, theirs)


def test_the_state_of_a_wrapper_comes_back() -> None:
    model = TinyModel()
    first, second = (AmpOptimWrapper(_optimizer(model)) for _ in range(2))
    first.update_params(model.head.weight.square().sum())
    state = first.state_dict()
    second.load_state_dict(state)
    assert "loss_scaler" in state
    after = second.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for number, buffers in state["state"].items():
        assert torch.equal(after["state"][number]["momentum_buffer"], buffers["momentum_buffer"])


@pytest.mark.parametrize("wrapper", [{}, {"accumulative_counts": 2, "clip_grad": {"max_norm": 1.0}}])
def test_the_runner_trains_with_it(wrapper: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    config.optim_wrapper = {"type": "AmpOptimWrapper", **wrapper, "optimizer": {"type": "SGD", "lr": 0.1}}
    runner = Runner.from_cfg(config)
    runner.train()
    assert isinstance(runner.optim_wrapper, AmpOptimWrapper)
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in runner.model.parameters())


def test_what_it_cannot_do_is_said() -> None:
    optimizer = _optimizer(TinyModel())
    with pytest.raises(ValueError, match="dtype='half'; it can be 'bfloat16' or 'float16'"):
        AmpOptimWrapper(optimizer, dtype="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs a GPU, the model is on the cpu; use 'bfloat16'"):
        AmpOptimWrapper(optimizer, dtype="float16")

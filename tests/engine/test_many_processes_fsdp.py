"""FSDP2 trains what DDP trains, and its checkpoints are a plain model's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from random_run import RandomModel, differences, log_lines, random_config, without_times
from ranks import in_ranks
from torch import nn

from visionattn.engine.fsdp import FullyShardedModel
from visionattn.engine.launch import join_processes, leave_processes
from visionattn.engine.runner import Runner
from visionattn.weights.loading import load_checkpoint
from visionattn.weights.reading import read_checkpoint

SHARDED = {"type": "visionattn.FullyShardedModel", "units": ["Linear"]}
ITERATIONS = 14
CUT = 7  # in the middle of a step of three batches
BETWEEN = 9


def _train(folder: Path, wrapper: dict[str, Any] | None, resume: Path | None = None, optimizer: str = "SGD") -> Runner:
    config = random_config(folder, feature="accumulation", optimizer=optimizer)
    config.train_cfg.max_iters = config.param_scheduler[1].end = ITERATIONS
    config.launcher = "pytorch"
    config.model.width = 5  # which two processes cannot share equally
    config.model_wrapper_cfg = wrapper
    config.resume, config.load_from = resume is not None, str(resume) if resume else None
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: ddp and fsdp; begun as one and resumed as the other; with AdamW, whole and cut."""
    folder = tmp_path_factory.mktemp("fsdp")

    def rank(number: int) -> list[list[int]]:
        _train(folder / "ddp", None)
        sharded = _train(folder / "fsdp", SHARDED)
        parts = [list(parameter.to_local().shape) for parameter in sharded.model.parameters()]
        _train(folder / "fsdp_ddp", None, folder / "fsdp" / f"iter_{BETWEEN}.pth")
        _train(folder / "ddp_fsdp", SHARDED, folder / "ddp" / f"iter_{BETWEEN}.pth")
        _train(folder / "uncut", SHARDED, optimizer="AdamW")
        _train(folder / "cut", SHARDED, folder / "uncut" / f"iter_{CUT}.pth", optimizer="AdamW")
        leave_processes()
        return parts

    with pytest.MonkeyPatch.context() as patch:  # laying out a config's text is most of so short a run
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))
        first, second = in_ranks(rank, folder / "ranks")
    assert [first.result[0], second.result[0]] == [[3, 3], [2, 3]]  # of five rows
    return folder


def _last(folder: Path) -> dict[str, Any]:
    return read_checkpoint(folder / f"iter_{ITERATIONS}.pth")


@pytest.mark.parametrize("name", ["fsdp", "fsdp_ddp", "ddp_fsdp"])
def test_it_trains_what_ddp_trains(name: str, runs: Path) -> None:
    found, expected = _last(runs / name), _last(runs / "ddp")
    for part in ("state_dict", "optimizer"):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=1e-5)
    after = BETWEEN if "_" in name else 0
    lines, others = log_lines(runs / name, after), log_lines(runs / "ddp", after)
    assert len(lines) == len(others) > 1
    for line, other in zip(lines, others, strict=True):
        assert line == pytest.approx(other, abs=1e-5)


def test_a_cut_does_nothing(runs: Path) -> None:
    found, expected = _last(runs / "cut"), _last(runs / "uncut")
    assert differences(without_times(found), without_times(expected)) == []
    assert log_lines(runs / "cut", CUT) == log_lines(runs / "uncut", CUT)


def test_its_checkpoint_loads_into_a_plain_model(runs: Path) -> None:
    model = RandomModel(width=5)
    path = runs / "fsdp" / f"iter_{ITERATIONS}.pth"
    assert load_checkpoint(model, path).complete
    assert all(type(value) is torch.Tensor for value in model.state_dict().values())
    assert model.hidden.weight.shape == (5, 3)


def test_units_that_the_model_lacks_are_named() -> None:
    with pytest.raises(ValueError, match="the model has no SwinBlock; its classes are BatchNorm1d, Linear"):
        FullyShardedModel(RandomModel(), ["SwinBlock", "Linear"])
    with pytest.raises(ValueError, match="param_dtype='float16' must be"):
        FullyShardedModel(RandomModel(), [], param_dtype="float16")


def test_bfloat16_keeps_float32_weights(tmp_path: Path) -> None:
    def rank(number: int) -> list[str]:
        join_processes("pytorch")
        seen: list[torch.dtype] = []
        layer = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
        layer[1].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
        model = FullyShardedModel(layer, ["Linear"], param_dtype="bfloat16")
        model(torch.ones(2, 4)).sum().backward()
        kinds = [*seen, *(parameter.dtype for parameter in model.parameters())]
        kinds += [parameter.grad.dtype for parameter in model.parameters() if parameter.grad is not None]
        leave_processes()
        return [str(kind) for kind in kinds]

    for found in in_ranks(rank, tmp_path):
        assert found.result == ["torch.bfloat16"] + ["torch.float32"] * 8

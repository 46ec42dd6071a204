"""Sharpness-aware steps are those of a plain loop, and go with what else the engine does to a step."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, OPTIM_WRAPPERS
from tiny_run import TinyData, TinyModel, tiny_config
from torch import Tensor, nn

from visionattn.cli.train import _mixed_precision
from visionattn.engine.runner import Runner
from visionattn.engine.sam import SAMAmpOptimWrapper, SAMOptimWrapper
from visionattn.weights.reading import read_checkpoint

RHO = 0.3


def batches(number: int = 5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    xs = torch.randn(number, 6, 3, generator=generator)
    return [{"x": x, "y": (x.sum(1) > 0).long()} for x in xs]


def optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        [
            {"params": model.hidden.parameters()},
            {"params": [*model.norm.parameters(), *model.head.parameters()], "lr": 0.3},
        ],
        lr=0.1,
        momentum=0.9,
        weight_decay=0.01,
    )


def plain_loop(model: TinyModel, clip: float | None, dtype: torch.dtype | None) -> None:
    """The algorithm of the paper, with running statistics that only the first pass moves."""
    steps = optimizer(model)

    def gradients(batch: dict[str, Tensor]) -> list[Tensor]:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            loss = model(**batch, mode="loss")["loss"]
        return list(torch.autograd.grad(loss, list(model.parameters())))

    for batch in batches():
        first = gradients(batch)
        statistics = copy.deepcopy(dict(model.named_buffers()))
        length = torch.cat([g.flatten() for g in first]).norm()
        weights = [p.detach().clone() for p in model.parameters()]
        with torch.no_grad():
            for p, g in zip(model.parameters(), first, strict=True):
                p += RHO * g / length
        second = gradients(batch)
        with torch.no_grad():
            for p, g, w in zip(model.parameters(), second, weights, strict=True):
                p.copy_(w)
                p.grad = g
            for name, buffer in model.named_buffers():
                buffer.copy_(statistics[name])
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        steps.step()


@pytest.mark.parametrize(
    ("kind", "dtype"), [(SAMOptimWrapper, None), (SAMAmpOptimWrapper, torch.bfloat16)], ids=["float32", "bfloat16"]
)
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_are_those_of_a_plain_loop(kind: type[SAMOptimWrapper], dtype: Any, clip: float | None) -> None:
    torch.manual_seed(0)
    model = TinyModel()
    start, other = copy.deepcopy(model), copy.deepcopy(model)
    wrapper = kind(optimizer(model), clip_grad=None if clip is None else {"max_norm": clip}, rho=RHO)
    for batch in batches():
        model.train_step(batch, wrapper)
    plain_loop(other, clip, dtype)
    tolerance = 1e-6 if dtype is None else 2e-3
    for name, mine in model.state_dict().items():
        torch.testing.assert_close(mine, other.state_dict()[name], rtol=tolerance, atol=tolerance)
    ordinary = OPTIM_WRAPPERS.build({"type": "mmengine.OptimWrapper", "optimizer": optimizer(start)})
    for batch in batches():
        start.train_step(batch, ordinary)
    assert (model.head.weight - start.head.weight).abs().max() > 0.01, "the neighbour made no difference"
    assert wrapper._inner_count == 5


def test_the_log_has_the_losses_of_the_first_pass() -> None:
    torch.manual_seed(0)
    model, batch = TinyModel(), batches()[0]
    expected = copy.deepcopy(model)(**batch, mode="loss")["loss"]
    logged = model.train_step(batch, SAMOptimWrapper(optimizer(model), rho=RHO))
    assert logged["loss"].item() == pytest.approx(expected.item())


def test_a_second_pass_that_fails_leaves_the_weights_where_they_were() -> None:
    torch.manual_seed(0)
    model, batch = TinyModel(), batches()[0]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper, calls = SAMOptimWrapper(optimizer(model), rho=RHO), []

    def fail(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError

    model.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        model.train_step(batch, wrapper)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def in_order(work_dir: Path, data: str = "TinyData") -> Config:
    """Eight iterations with SAM, four samples in the order of their numbers each, and a checkpoint of every one."""
    config = tiny_config(work_dir, param_scheduler=None)
    config.train_dataloader.dataset = {"type": data}
    config.train_dataloader.sampler.shuffle = False
    config.optim_wrapper = {"type": "visionattn.SAMOptimWrapper", "rho": RHO, "optimizer": {"type": "SGD", "lr": 0.1}}
    config.default_hooks.checkpoint.interval = 1
    return config


def state(folder: Path, iteration: int) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = read_checkpoint(folder / f"iter_{iteration}.pth")["state_dict"]
    return weights


def test_the_runner_trains_with_it_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = {"type": "visionattn.SAMAmpOptimWrapper", "rho": RHO, "optimizer": {"type": "AdamW", "lr": 0.01}}
    whole = tiny_config(tmp_path / "whole", optim_wrapper=options)
    Runner.from_cfg(whole).train()
    cut = tiny_config(tmp_path / "cut", optim_wrapper=options)
    cut.resume, cut.load_from = True, str(tmp_path / "whole" / "iter_4.pth")
    Runner.from_cfg(cut).train()
    states = [state(tmp_path / name, 8) for name in ("whole", "cut")]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
        assert value.isfinite().all()


@DATASETS.register_module()
class HoledData(TinyData):
    """Sample 5, which is in the second batch, holds a nan."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "x": sample["x"] * float("nan")} if index == 5 else sample


@MODELS.register_module()
class CliffModel(TinyModel):
    """Its loss is nan away from the weights that iteration 2 begins with; with `steep`, its gradient there instead."""

    def __init__(self, steep: bool = False) -> None:
        super().__init__()
        self.steep, self.seen = steep, 0

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        found = super().forward(x, y, mode)
        if mode == "loss":
            self.seen += 1
            if self.steep and self.seen == 3:  # the first pass of the second iteration
                zero = (self.head.weight - self.head.weight.detach()).sum()
                found["loss_steep"] = torch.where(zero > 0, zero, zero.abs().sqrt())
            elif not self.steep and self.seen == 4:  # the second pass
                found["loss"] = found["loss"] * float("nan")
        return found


@pytest.mark.parametrize(("steep", "what"), [(False, "loss"), (True, "gradient")])
def test_a_pass_that_is_not_finite_leaves_the_step_out(steep: bool, what: str, tmp_path: Path) -> None:
    config = in_order(tmp_path)
    config.model = {"type": "CliffModel", "steep": steep}
    Runner.from_cfg(config).train()
    before, after, later = (state(tmp_path, n) for n in (1, 2, 3))
    assert json.loads((tmp_path / "non_finite" / "iter_2.json").read_text())["what"] == what
    for name, value in before.items():
        if not name.startswith("norm.") or not steep:  # a gradient comes after the statistics, as without SAM
            assert torch.equal(value, after[name]), name
    assert not torch.equal(after["head.weight"], later["head.weight"])
    assert all(value.isfinite().all() for value in state(tmp_path, 8).values())


def test_a_first_loss_that_is_nan_leaves_the_step_out(tmp_path: Path) -> None:
    Runner.from_cfg(in_order(tmp_path, "HoledData")).train()
    before, after = (state(tmp_path, n) for n in (1, 2))
    for name, value in before.items():
        assert torch.equal(value, after[name]), name


def test_the_option_amp_finds_its_half_precision_form() -> None:
    config = Config({"optim_wrapper": {"type": "visionattn.SAMOptimWrapper", "rho": RHO}})
    _mixed_precision(config)
    assert config.optim_wrapper == {"type": "visionattn.SAMAmpOptimWrapper", "rho": RHO}
    assert OPTIM_WRAPPERS.get(config.optim_wrapper.type) is SAMAmpOptimWrapper


def test_what_it_cannot_do_is_said() -> None:
    model = TinyModel()
    with pytest.raises(ValueError, match=r"accumulative_counts=4: .*take a larger batch, or more processes"):
        SAMOptimWrapper(optimizer(model), accumulative_counts=4)
    with pytest.raises(ValueError, match=r"SAMAmpOptimWrapper has rho=0; it must be above 0, such as 0\.05"):
        SAMAmpOptimWrapper(optimizer(model), rho=0)
    with pytest.raises(ValueError, match="saw 0 of them: its train_step must call the model itself once"):
        SAMOptimWrapper(optimizer(model)).update_params(model.head.weight.sum())

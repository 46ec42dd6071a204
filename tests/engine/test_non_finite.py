"""Nothing that is not finite reaches weights, optimiser or running statistics, and a person can see what it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmengine.structures import BaseDataElement
from tiny_run import TinyData, TinyModel, tiny_config
from torch import Tensor

from visionattn.engine.non_finite import image_names, statistics
from visionattn.engine.runner import Runner
from visionattn.weights.reading import read_checkpoint


@DATASETS.register_module()
class SpoiltData(TinyData):
    """Samples with their files' names; those at `bad` hold a nan."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.bad = bad

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        x = sample["x"].clone()
        if index in self.bad:
            x[1] = float("nan")
        return {**sample, "x": x, "img_path": f"data/{index}.png"}


@MODELS.register_module()
class NamedModel(TinyModel):
    """Takes batches with names; with `steep`, its third loss has an infinite gradient."""

    def __init__(self, steep: bool = False) -> None:
        super().__init__()
        self.steep = steep
        self.seen = 0

    def forward(self, x: Tensor, y: Tensor, img_path: Any = None, mode: str = "tensor") -> Any:
        found = super().forward(x, y, mode)
        if mode == "loss":
            self.seen += 1
            if self.steep and self.seen == 3:
                zero = (self.head.weight - self.head.weight.detach()).sum()
                found["loss_steep"] = torch.where(zero > 0, zero, zero.abs().sqrt())
        return found


def _config(work_dir: Path, bad: tuple[int, ...] = (), **wrapper: Any) -> Config:
    """Eight iterations of four samples in the order of their numbers, sixteen of them."""
    config = tiny_config(work_dir, model={"type": "NamedModel"}, param_scheduler=None)
    config.train_dataloader.dataset = {"type": "SpoiltData", "bad": bad}
    config.train_dataloader.sampler.shuffle = False
    config.optim_wrapper = {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, **wrapper}
    config.default_hooks.checkpoint.interval = 1
    return config


def _train(config: Config) -> Runner:
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def _state(folder: Path, iteration: int) -> dict[str, Any]:
    return read_checkpoint(folder / f"iter_{iteration}.pth")


def test_a_step_whose_loss_is_nan_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(_config(tmp_path, bad=(5,)))
    before, after, later = (_state(tmp_path, iteration) for iteration in (1, 2, 3))
    for name, value in before["state_dict"].items():
        assert torch.equal(value, after["state_dict"][name]), name  # running statistics too
    for number, buffers in before["optimizer"]["state"].items():
        assert torch.equal(buffers["momentum_buffer"], after["optimizer"]["state"][number]["momentum_buffer"])
    assert not torch.equal(later["state_dict"]["head.weight"], after["state_dict"]["head.weight"])
    assert all(value.isfinite().all() for value in _state(tmp_path, 8)["state_dict"].values())
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: iteration")]
    path = tmp_path / "non_finite" / "iter_2.json"
    assert said[0] == (
        "warning: iteration 2: the loss is not finite (data/4.png, data/5.png, data/6.png, data/7.png); "
        f"see {path}; its step is left out (1 in a row, 10 may be)"
    )
    assert len(said) == 2  # the second time round, in iteration 6
    report = json.loads(path.read_text())
    assert report["what"] == "loss"
    assert report["images"] == ["data/4.png", "data/5.png", "data/6.png", "data/7.png"]
    assert report["losses"]["loss"] == "nan"
    assert report["inputs"]["batch.x"]["nan"] == 1
    assert report["parameters"]["head.weight"]["nan"] == report["buffers"]["norm.running_mean"]["nan"] == 0


def test_without_the_hook_everything_is_lost(tmp_path: Path) -> None:
    config = _config(tmp_path, bad=(5,))
    config.default_hooks.non_finite = None
    _train(config)
    assert any(value.isnan().any() for value in _state(tmp_path, 8)["state_dict"].values())


def test_a_gradient_that_is_infinite_is_left_out(tmp_path: Path) -> None:
    config = _config(tmp_path, clip_grad={"max_norm": 1.0})
    config.model.steep = True
    _train(config)
    before, after = _state(tmp_path, 2), _state(tmp_path, 3)
    for name in ("head.weight", "hidden.weight"):
        assert torch.equal(before["state_dict"][name], after["state_dict"][name])
    report = json.loads((tmp_path / "non_finite" / "iter_3.json").read_text())
    assert report["what"] == "gradient"
    assert report["gradients"]["head.weight"]["nan"] + report["gradients"]["head.weight"]["inf"] > 0
    assert report["gradients"]["hidden.weight"]["nan"] == 0
    assert all(value.isfinite().all() for value in _state(tmp_path, 8)["state_dict"].values())


@pytest.mark.parametrize("wrapper", ["OptimWrapper", "AmpOptimWrapper"])
def test_a_step_of_several_batches_is_left_out_whole(wrapper: str, tmp_path: Path) -> None:
    """Batches 3 and 4 make the second step; the fourth is spoilt, and the third must not act either, then or later."""
    _train(_config(tmp_path / "run", bad=(13,), accumulative_counts=2, type=wrapper))
    states = {iteration: _state(tmp_path / "run", iteration)["state_dict"] for iteration in (2, 4, 6)}
    assert torch.equal(states[2]["head.weight"], states[4]["head.weight"])
    assert not torch.equal(states[4]["head.weight"], states[6]["head.weight"])
    assert _state(tmp_path / "run", 3)["run_state"]["gradients"] is not None
    assert _state(tmp_path / "run", 4)["run_state"]["gradients"] is None


@pytest.mark.parametrize("cut", [5, 6, 7])
def test_what_was_left_out_is_remembered_by_a_resumed_run(cut: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"bad": (8, 9), "accumulative_counts": 4}
    _train(_config(tmp_path / "uncut", **options))
    config = _config(tmp_path / "cut", **options)
    config.resume, config.load_from = True, str(tmp_path / "uncut" / f"iter_{cut}.pth")
    _train(config)
    one, other = (_state(tmp_path / name, 8) for name in ("cut", "uncut"))
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name])
    assert one["message_hub"]["runtime_info"]["non_finite"] == other["message_hub"]["runtime_info"]["non_finite"]


def test_a_run_of_nothing_else_is_stopped_in_one_line(tmp_path: Path) -> None:
    config = _config(tmp_path, bad=tuple(range(8, 16)))
    config.default_hooks.non_finite = {"type": "visionattn.NonFiniteHook", "limit": 1}
    with pytest.raises(ValueError, match=r"^iteration 4: the loss is not finite \(data/12\.png, ") as stopped:
        _train(config)
    message = str(stopped.value)
    assert "\n" not in message
    assert "stopped, as the step was the 2. in a row to be left out: lower the learning rate" in message
    assert f"resume from {tmp_path}/iter_3.pth" in message
    assert json.loads((tmp_path / "non_finite" / "iter_4.json").read_text())["iteration"] == 4
    assert all(value.isfinite().all() for value in _state(tmp_path, 3)["state_dict"].values())


def test_steps_are_counted_not_batches(tmp_path: Path) -> None:
    """Of two batches a step, one is spoilt in every step."""
    config = _config(tmp_path, bad=(0, 8), accumulative_counts=2)
    config.default_hooks.non_finite = {"type": "visionattn.NonFiniteHook", "limit": 2}
    with pytest.raises(ValueError, match=r"^iteration 5: the loss is not finite \(data/0\.png, .* the 3\. in a row"):
        _train(config)


def test_the_count_begins_anew_with_each_good_step(tmp_path: Path) -> None:
    config = _config(tmp_path, bad=(0, 8))  # every other step
    config.default_hooks.non_finite = {"type": "visionattn.NonFiniteHook", "limit": 1}
    _train(config)
    assert {path.name for path in (tmp_path / "non_finite").iterdir()} == {f"iter_{n}.json" for n in (1, 3, 5, 7)}


def test_the_limit_is_checked() -> None:
    from visionattn.engine.non_finite import NonFiniteHook

    with pytest.raises(ValueError, match="limit=-1: the number of steps"):
        NonFiniteHook(limit=-1)


def test_statistics_are_of_the_finite_elements() -> None:
    nan, inf = float("nan"), float("inf")
    found = statistics(torch.tensor([[1.0, nan, 3.0], [inf, -inf, nan]], dtype=torch.float16))
    assert found == {"shape": [2, 3], "dtype": "float16", "min": 1.0, "max": 3.0, "mean": 2.0, "nan": 2, "inf": 2}
    assert statistics(torch.tensor([3, 4])) == {"shape": [2], "dtype": "int64", "min": 3.0, "max": 4.0, "mean": 3.5}
    assert statistics(torch.zeros(0)) == {"shape": [0], "dtype": "float32", "nan": 0, "inf": 0}


def test_images_are_named_in_every_form_of_batch() -> None:
    samples = [BaseDataElement(metainfo={"img_path": f"{name}.png"}) for name in "ab"]
    assert image_names({"inputs": [torch.ones(1)], "data_samples": samples}) == ["a.png", "b.png"]
    assert image_names([{"img_path": "a.png"}, {"img_path": "b.png", "x": 1}]) == ["a.png", "b.png"]
    assert image_names({"img_path": ["a.png", "b.png"], "x": torch.ones(2)}) == ["a.png", "b.png"]
    assert image_names({"x": torch.ones(2), "y": [1, 2]}) == []

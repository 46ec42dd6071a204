"""Checkpoints are plain data, a run is taken up where it stopped, and the terminal shows little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file
from tiny_run import tiny_config

from visionattn.engine.checkpoint import latest_checkpoint
from visionattn.engine.runner import Runner
from visionattn.registry import RUNNERS


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _trained(config: Config) -> Runner:
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def _read(path: Path) -> dict[str, Any]:
    with torch.serialization.safe_globals([]):
        torch.serialization.clear_safe_globals()
        content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def _assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            _assert_equal(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            _assert_equal(mine, theirs)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_checkpoints_are_plain_data(tmp_path: Path) -> None:
    runner = _trained(tiny_config(tmp_path))
    saved = _read(tmp_path / "iter_8.pth")
    assert set(saved) == {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers", "run_state"}
    assert saved["meta"]["iter"] == 8
    assert saved["meta"]["seed"] == 3
    assert saved["meta"]["dataset_meta"]["classes"] == ("low", "high")
    for name, value in runner.model.state_dict().items():
        assert torch.equal(saved["state_dict"][name], value)
    assert saved["state_dict"]._metadata["norm"] == {"version": 2}
    losses = saved["message_hub"]["log_scalars"]["train/loss"]
    assert losses["values"].dtype == torch.float64
    assert len(losses["values"]) == len(losses["counts"]) == 8
    assert saved["param_schedulers"][0]["last_step"] == 7
    assert set(_read(tmp_path / "iter_8.pth")["optimizer"]["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("hooks", [[], [{"type": "EMAHook"}]], ids=["plain", "ema"])
def test_a_resumed_run_ends_as_the_uncut_one(hooks: list[dict[str, Any]], tmp_path: Path) -> None:
    _trained(tiny_config(tmp_path / "uncut", custom_hooks=hooks))
    config = tiny_config(tmp_path / "resumed", custom_hooks=hooks, resume=True)
    config.load_from = str(tmp_path / "uncut" / "iter_4.pth")
    _trained(config)
    uncut, resumed = (_read(tmp_path / name / "iter_8.pth") for name in ("uncut", "resumed"))
    for key in ("state_dict", "optimizer", "param_schedulers", *(["ema_state_dict"] if hooks else [])):
        _assert_equal(resumed[key], uncut[key])
    ours, theirs = (run["message_hub"]["log_scalars"] for run in (resumed, uncut))
    for name in ("train/loss", "train/lr"):
        _assert_equal(ours[name], theirs[name])


def test_resuming_restores_counters_seed_and_history(tmp_path: Path) -> None:
    _trained(tiny_config(tmp_path / "first"))
    config = tiny_config(tmp_path / "again", resume=True, randomness={"seed": 99})
    config.load_from = str(tmp_path / "first" / "iter_4.pth")
    runner = Runner.from_cfg(config)
    runner.train_loop, runner.val_loop  # noqa: B018  # built on access
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    runner.load_or_resume()
    assert (runner.iter, runner.epoch, runner.seed) == (4, 0, 3)
    saved = _read(tmp_path / "first" / "iter_4.pth")
    history = runner.message_hub.get_scalar("train/loss")
    values, counts = history.data
    np.testing.assert_array_equal(values, saved["message_hub"]["log_scalars"]["train/loss"]["values"].numpy())
    np.testing.assert_array_equal(counts, np.ones(4))
    assert history.mean(2) == values[-2:].mean()
    assert runner.param_schedulers[0].last_step == saved["param_schedulers"][0]["last_step"]
    assert runner.optim_wrapper.get_lr()["lr"][0] == saved["optimizer"]["param_groups"][0]["lr"]


@pytest.mark.parametrize("strict", [True, False])
def test_weights_of_another_model_stop_a_run(strict: bool, tmp_path: Path) -> None:
    _trained(tiny_config(tmp_path / "first"))
    wide = tiny_config(tmp_path / "wide", model={"type": "TinyModel", "width": 5}, load_strict=strict)
    wide.load_from = str(tmp_path / "first" / "iter_8.pth")
    if not strict:
        runner = _trained(wide)
        log = Path(runner.logger.log_file).read_text()
        assert "2 tensors match, 7 of another shape (first: hidden.weight [4, 3], expected [5, 3])" in log
        return
    with pytest.raises(ValueError, match=r"iter_8\.pth: .* another model .* load_strict=False in the config loads"):
        _trained(wide)


def test_bare_weights_start_a_run_and_cannot_be_resumed(tmp_path: Path) -> None:
    first = _trained(tiny_config(tmp_path / "first"))
    save_file(first.model.state_dict(), tmp_path / "weights.safetensors")
    config = tiny_config(tmp_path / "second", load_from=str(tmp_path / "weights.safetensors"), custom_hooks=[])
    config.optim_wrapper.optimizer.lr = 0.0
    config.param_scheduler = None
    second = _trained(config)
    for name, value in second.model.named_parameters():
        assert torch.equal(value, dict(first.model.named_parameters())[name])
    config.resume = True
    with pytest.raises(ValueError, match="holds no meta and no message_hub and no optimizer: it cannot be resumed"):
        _trained(config)


def test_what_plain_data_cannot_say_is_left_out_of_the_history_by_name(tmp_path: Path) -> None:
    runner = Runner.from_cfg(tiny_config(tmp_path))
    runner.message_hub.update_info("odd", object())
    runner.train()
    assert "odd" not in _read(tmp_path / "iter_8.pth")["message_hub"]["runtime_info"]
    assert "message_hub.odd is a builtins.object" in Path(runner.logger.log_file).read_text()


def test_state_that_plain_data_cannot_say_is_no_checkpoint(tmp_path: Path) -> None:
    runner = Runner.from_cfg(tiny_config(tmp_path))
    runner.model.get_extra_state = lambda: object()
    runner.model.__class__ = type("Odd", (type(runner.model),), {"get_extra_state": lambda self: object()})
    with pytest.raises(TypeError, match=r"checkpoint\.state_dict\._extra_state is a builtins\.object"):
        runner.train()


def test_the_runner_is_ours_by_name() -> None:
    assert RUNNERS.get("Runner") is Runner
    assert RUNNERS.get("visionattn.Runner") is Runner


def test_the_terminal_shows_a_summary_and_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runner = _trained(tiny_config(tmp_path / "run"))
    lines = capsys.readouterr().out.splitlines()
    shown = {line.split("  ")[0]: line for line in lines}
    assert shown["model"].endswith("TinyModel, 34 parameters")
    assert shown["data"].endswith("train 16, val 16; batch 4, 0 workers")
    assert shown["schedule"].endswith("8 iterations")
    assert shown["work dir"].endswith("run")
    progress = [line for line in lines if line.startswith("train ")]
    assert [line.split()[1] for line in progress] == ["2/8", "4/8", "6/8", "8/8"]
    assert all("loss " in line and "lr " in line and "ETA 0:00:0" in line for line in progress)
    assert [line for line in lines if line.startswith("val  tiny/accuracy ")]
    assert len(lines) <= 6 + 4 + 2
    log = Path(runner.logger.log_file).read_text()
    for hidden in ("System environment", "Config:", "Hooks will be executed", "Saving checkpoint at 8"):
        assert hidden in log
    scalars = (Path(runner.log_dir) / "vis_data" / "scalars.json").read_text().splitlines()
    assert {"loss", "lr", "time", "data_time", "step"} <= set(json.loads(scalars[0]))


def test_epochs_are_shown_as_epochs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny_config(tmp_path, log_processor={"by_epoch": True}, param_scheduler=None)
    config.train_cfg = {"by_epoch": True, "max_epochs": 2, "val_interval": 1}
    config.train_dataloader.sampler.type = "DefaultSampler"
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1}
    config.default_hooks.logger.log_metric_by_epoch = True
    _trained(config)
    lines = capsys.readouterr().out.splitlines()
    assert "schedule  2 epochs" in lines
    assert [line.split("  ")[:2] for line in lines if line.startswith("train ")] == [
        ["train epoch 1/2", "2/4"],
        ["train epoch 1/2", "4/4"],
        ["train epoch 2/2", "2/4"],
        ["train epoch 2/2", "4/4"],
    ]
    assert _read(tmp_path / "epoch_2.pth")["meta"]["epoch"] == 2
    config.resume, config.load_from = True, str(tmp_path / "epoch_1.pth")
    _trained(config)
    lines = capsys.readouterr().out.splitlines()
    assert f"resumed {tmp_path}/epoch_1.pth at epoch 1, iteration 4" in lines
    assert [line.split("  ")[0] for line in lines if line.startswith("train ")] == ["train epoch 2/2"] * 2


def test_two_runs_of_one_second_share_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmengine.runner.runner.time.strftime", lambda *_: "20260102_030405")
    runs = [Runner.from_cfg(tiny_config(tmp_path)) for _ in range(3)]
    assert len({run.timestamp for run in runs}) == 3
    assert len({id(run.message_hub) for run in runs}) == len({run.log_dir for run in runs}) == 3


def test_testing_reports_the_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _trained(tiny_config(tmp_path / "first"))
    capsys.readouterr()
    config = tiny_config(tmp_path / "test", load_from=str(tmp_path / "first" / "iter_8.pth"))
    metrics = Runner.from_cfg(config).test()
    assert f"test  tiny/accuracy {metrics['tiny/accuracy']:.2f}" in capsys.readouterr().out.splitlines()


def test_the_latest_checkpoint_is_found_where_the_folder_was_moved_to(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    _trained(tiny_config(tmp_path / "here"))
    assert latest_checkpoint(tmp_path / "here") == str(tmp_path / "here" / "iter_8.pth")
    (tmp_path / "here").rename(tmp_path / "there")
    assert latest_checkpoint(tmp_path / "there") == str(tmp_path / "there" / "iter_8.pth")
    (tmp_path / "there" / "iter_8.pth").unlink()
    assert latest_checkpoint(tmp_path / "there") == str(tmp_path / "there" / "iter_4.pth")
    (tmp_path / "there" / "iter_4.pth").unlink()
    assert latest_checkpoint(tmp_path / "there") is None


def test_no_workers_by_option_leaves_no_option_of_theirs() -> None:
    options = {
        "batch_size": 2,
        "dataset": torch.utils.data.TensorDataset(torch.arange(3)),
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "persistent_workers": True,
        "prefetch_factor": 2,
    }
    assert not Runner.build_dataloader({**options, "num_workers": 0}).persistent_workers
    with_workers = Runner.build_dataloader({**options, "num_workers": 1})
    assert with_workers.persistent_workers
    assert with_workers.prefetch_factor == 2

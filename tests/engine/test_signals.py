"""A run that is asked to stop has saved when it ends, and goes on exactly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from random_run import differences, log_lines, random_config, without_times

from visionattn.engine.checkpoint import latest_checkpoint
from visionattn.engine.runner import Runner
from visionattn.engine.signals import STOPPED
from visionattn.weights.reading import read_checkpoint

SCRIPT = Path(__file__).parents[1] / "signalled_run.py"


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


class SignalAt(Hook):
    """Sends this process a signal in the middle of an iteration, or of the validation behind it."""

    def __init__(self, number: int, iteration: int, validation: bool = False) -> None:
        self.number, self.iteration, self.validation = number, iteration, validation

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == self.iteration and not self.validation:
            os.kill(os.getpid(), self.number)

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.iteration and self.validation and batch_idx == 2:
            os.kill(os.getpid(), self.number)


def _stopped(work_dir: Path, hook: Hook, **options: Any) -> int:
    config = random_config(work_dir, **options)
    config.default_hooks.checkpoint.interval = 100
    runner = Runner.from_cfg(config)
    runner.register_hook(hook)
    with pytest.raises(SystemExit) as ended:
        runner.train()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    return int(str(ended.value.code))


def _assert_goes_on_exactly(tmp_path: Path, cut: int, **options: Any) -> None:
    config = random_config(tmp_path / "cut", **options)
    config.default_hooks.checkpoint.interval = 100
    config.resume = True
    Runner.from_cfg(config).train()
    uncut = random_config(tmp_path / "uncut", **options)
    uncut.default_hooks.checkpoint.interval = 100
    Runner.from_cfg(uncut).train()
    one, other = (read_checkpoint(tmp_path / name / "iter_24.pth") for name in ("cut", "uncut"))
    assert differences(without_times(one), without_times(other)) == []
    assert log_lines(tmp_path / "cut", after=cut) == log_lines(tmp_path / "uncut", after=cut)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(("feature", "iteration"), [("ema", 8), ("accumulation", 13)])
def test_an_iteration_is_finished_and_saved(number: int, feature: str, iteration: int, tmp_path: Path) -> None:
    assert _stopped(tmp_path / "cut", SignalAt(number, iteration), feature=feature) == STOPPED == 143
    assert latest_checkpoint(tmp_path / "cut") == str(tmp_path / "cut" / f"iter_{iteration}.pth")
    _assert_goes_on_exactly(tmp_path, iteration, feature=feature)


def test_a_validation_is_left_saved_and_made_up_for(tmp_path: Path) -> None:
    """With averaged weights in the model's place at that moment."""
    assert _stopped(tmp_path / "cut", SignalAt(signal.SIGTERM, 10, validation=True), feature="ema") == STOPPED
    assert latest_checkpoint(tmp_path / "cut") == str(tmp_path / "cut" / "iter_10.pth")
    _assert_goes_on_exactly(tmp_path, 10, feature="ema")


def test_a_run_of_epochs_stops_in_the_middle_of_one(tmp_path: Path) -> None:
    config = random_config(tmp_path)
    config.train_cfg = {"by_epoch": True, "max_epochs": 3, "val_interval": 1}
    config.train_dataloader.sampler.type = "DefaultSampler"
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 1}
    runner = Runner.from_cfg(config)
    runner.register_hook(SignalAt(signal.SIGTERM, 6))
    with pytest.raises(SystemExit):
        runner.train()
    assert {path.name for path in tmp_path.glob("*.pth")} == {"epoch_1.pth", "iter_6.pth"}
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_6.pth")
    config.resume = True
    runner = Runner.from_cfg(config)
    runner.train()
    assert (runner.epoch, runner.iter) == (3, 12)
    assert {path.name for path in tmp_path.glob("*.pth")} == {"epoch_3.pth"}  # the one in between has gone


def test_a_second_signal_while_saving_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from visionattn.engine import runner as module

    def save(content: Any, path: str) -> None:
        if path.endswith("iter_7.pth"):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGUSR1)
        saved(content, path)

    saved = module.save_durably
    monkeypatch.setattr(module, "save_durably", save)
    assert _stopped(tmp_path, SignalAt(signal.SIGUSR1, 7)) == STOPPED
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_7.pth")


def test_without_a_checkpoint_hook_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = random_config(tmp_path)
    config.default_hooks = {"checkpoint": None}
    runner = Runner.from_cfg(config)
    runner.register_hook(SignalAt(signal.SIGTERM, 3))
    with pytest.raises(SystemExit):
        runner.train()
    assert "stopped by SIGTERM after iteration 3; no CheckpointHook: nothing saved" in capsys.readouterr().out


def test_the_hook_can_be_left_out_and_threads_can_train(tmp_path: Path) -> None:
    config = random_config(tmp_path / "without")
    config.default_hooks.stop_on_signal = None
    runner = Runner.from_cfg(config)
    assert not any(type(hook).__name__ == "StopOnSignalHook" for hook in runner.hooks)
    thread = threading.Thread(target=Runner.from_cfg(random_config(tmp_path / "thread")).train)
    thread.start()
    thread.join()
    assert (tmp_path / "thread" / "iter_24.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["iteration", "validation"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_group_is_signalled_workers_and_all(number: int, place: str, tmp_path: Path) -> None:
    """As schedulers do it; the loader's workers must not die before the run has saved."""
    options = {"workers": 2, "feature": "ema"}
    command = [sys.executable, str(SCRIPT), str(tmp_path / "cut"), json.dumps(options)]
    process = subprocess.Popen([*command, place], start_new_session=True)
    while not (tmp_path / "cut" / "there").exists():
        assert process.poll() is None
        time.sleep(0.05)
    for _ in range(3):
        os.killpg(process.pid, number)
    (tmp_path / "cut" / "go").touch()
    assert process.wait(timeout=120) == STOPPED
    cut = {"iteration": 11, "validation": 10}[place]
    assert latest_checkpoint(tmp_path / "cut") == str(tmp_path / "cut" / f"iter_{cut}.pth")
    subprocess.run(command, check=True, timeout=300)
    _assert_equal_to_uncut(tmp_path, options)


def _assert_equal_to_uncut(tmp_path: Path, options: dict[str, Any]) -> None:
    config = random_config(tmp_path / "uncut", **options)
    config.default_hooks.checkpoint.interval = 100
    Runner.from_cfg(config).train()
    one, other = (read_checkpoint(tmp_path / name / "iter_24.pth") for name in ("cut", "uncut"))
    assert differences(without_times(one), without_times(other)) == []

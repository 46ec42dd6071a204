"""No checkpoint goes before its successor is there, and a damaged one is passed over."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from random_run import ITERATIONS, differences, random_config, without_times

from visionattn.engine import checkpoint as module
from visionattn.engine.checkpoint import CheckpointHook, good_checkpoint, latest_checkpoint
from visionattn.engine.runner import Runner
from visionattn.weights.durable import MANIFEST, read_manifest, verify
from visionattn.weights.reading import read_checkpoint


@HOOKS.register_module()
class PlainCheckpointHook(MMEngineCheckpointHook):
    """mmengine's own, under a name that our Runner does not take for it."""


@HOOKS.register_module()
class AccidentInValidation(Hook):
    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if runner.iter == self.iteration:
            raise InterruptedError


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _config(work_dir: Path, **options: Any) -> Config:
    config = random_config(work_dir)
    config.default_hooks.checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": 4, **options}
    return config


def _train(config: Config) -> Runner:
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def _files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pth")}


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


_BEST = {"save_best": "tiny/accuracy", "rule": "greater"}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_keep_ckpts": 1},
        {"max_keep_ckpts": 3, **_BEST},
        {"max_keep_ckpts": 1, "interval": 5, **_BEST},
        {"save_best": ["tiny/accuracy", "tiny/other"], "rule": ["greater", "less"], "max_keep_ckpts": 2},
        {"interval": -1, "save_last": False, **_BEST},
    ],
)
def test_the_same_files_are_kept_as_by_mmengine(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([3, 5, 4, 6, 6] * 2)  # by validation, for either run
    monkeypatch.setattr(
        "tiny_run.TinyAccuracy.compute_metrics",
        lambda self, results: {"accuracy": (score := next(scores)), "other": -score},
    )
    runner = _train(_config(tmp_path / "ours", **options))
    assert any(type(hook) is CheckpointHook for hook in runner.hooks)
    config = _config(tmp_path / "theirs", **options)
    config.default_hooks.checkpoint.type = "PlainCheckpointHook"
    _train(config)
    assert _files(tmp_path / "ours") == _files(tmp_path / "theirs")
    assert set(read_manifest(tmp_path / "ours")) == _files(tmp_path / "ours")
    ours, theirs = (tmp_path / name / "last_checkpoint" for name in ("ours", "theirs"))
    assert ours.exists() == theirs.exists()
    if ours.exists():
        assert Path(ours.read_text()).name == Path(theirs.read_text()).name


def test_nothing_is_removed_before_its_successor_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([3, 5, 4, 6, 7])
    monkeypatch.setattr("tiny_run.TinyAccuracy.compute_metrics", lambda self, results: {"accuracy": next(scores)})
    removed = []

    def remove(path: str) -> None:
        removed.append(Path(path).name)
        kind = "best_*" if "best" in Path(path).name else "iter_*"
        others = [other for other in tmp_path.glob(f"{kind}.pth") if other.name != Path(path).name]
        assert others
        assert all(verify(other) for other in others)
        Path(path).unlink()

    monkeypatch.setattr(module, "remove", remove)
    _train(_config(tmp_path, max_keep_ckpts=1, **_BEST))
    assert len([name for name in removed if name.startswith("iter")]) >= 5
    assert len([name for name in removed if name.startswith("best")]) == 3
    assert _files(tmp_path) == {"iter_24.pth", "best_tiny_accuracy_iter_24.pth"}


def test_damaged_checkpoints_are_passed_over_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _train(_config(tmp_path, **_BEST))
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_24.pth")
    _flip(tmp_path / "iter_24.pth")
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_20.pth")
    assert f"passed over: {tmp_path}/iter_24.pth is damaged: its sha256 is" in capsys.readouterr().out
    (tmp_path / "iter_20.pth").write_bytes(b"")
    config = _config(tmp_path, **_BEST)
    config.resume = True
    runner = _train(config)
    assert f"resumed {tmp_path}/iter_16.pth at epoch 0, iteration 16" in Path(runner.logger.log_file).read_text()
    assert verify(tmp_path / "iter_24.pth")
    for path in tmp_path.glob("iter_*.pth"):
        _flip(path)
    with pytest.raises(ValueError, match=r"no checkpoint in .* to begin anew, move them away: .*iter_24\.pth is"):
        latest_checkpoint(tmp_path)  # the best by a metric holds weights only
    assert good_checkpoint(tmp_path) is None


def test_the_newest_is_the_one_written_last_whatever_the_times_say(tmp_path: Path) -> None:
    _train(_config(tmp_path))
    for number, path in enumerate(sorted(tmp_path.glob("iter_*.pth"))):
        os.utime(path, (number, -number))
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_24.pth")
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_20.pth"))  # killed before it was recorded
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_24.pth")


def test_a_folder_without_a_manifest_is_read(tmp_path: Path) -> None:
    _train(_config(tmp_path))
    (tmp_path / MANIFEST).unlink()
    assert latest_checkpoint(tmp_path) == str(tmp_path / "iter_24.pth")
    torch.save({"a": torch.ones(1)}, tmp_path / "iter_24.pth")
    with pytest.raises(ValueError, match=r"iter_24\.pth holds weights only"):
        latest_checkpoint(tmp_path)


def test_checkpoints_elsewhere_are_found(tmp_path: Path) -> None:
    _train(_config(tmp_path / "logs", out_dir=str(tmp_path / "weights")))
    assert _files(tmp_path / "logs") == set()
    assert latest_checkpoint(tmp_path / "logs") == str(tmp_path / "weights" / "logs" / "iter_24.pth")
    _flip(tmp_path / "weights" / "logs" / "iter_24.pth")
    assert latest_checkpoint(tmp_path / "logs") == str(tmp_path / "weights" / "logs" / "iter_20.pth")


def test_a_copied_folder_stays_with_its_own_checkpoints(tmp_path: Path) -> None:
    _train(_config(tmp_path / "first"))
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert latest_checkpoint(tmp_path / "copy") == str(tmp_path / "copy" / "iter_24.pth")
    (tmp_path / "copy" / "iter_24.pth").unlink()
    assert latest_checkpoint(tmp_path / "copy") == str(tmp_path / "copy" / "iter_20.pth")
    (tmp_path / "copy" / MANIFEST).unlink()
    shutil.copy(tmp_path / "first" / "iter_24.pth", tmp_path / "copy")
    assert latest_checkpoint(tmp_path / "copy") == str(tmp_path / "copy" / "iter_24.pth")


def test_checkpoints_that_went_elsewhere_later_are_the_newer_ones(tmp_path: Path) -> None:
    config = _config(tmp_path / "logs")
    config.train_cfg.max_iters = 8
    _train(config)
    config = _config(tmp_path / "logs", out_dir=str(tmp_path / "weights"))
    config.resume = True
    _train(config)
    assert latest_checkpoint(tmp_path / "logs") == str(tmp_path / "weights" / "logs" / "iter_24.pth")


@pytest.mark.parametrize("by_epoch", [False, True])
def test_a_last_validation_that_is_made_up_for_is_in_the_checkpoint(by_epoch: bool, tmp_path: Path) -> None:
    def config(folder: Path) -> Config:
        made = _config(folder, by_epoch=by_epoch, interval=2)
        if by_epoch:
            made.train_dataloader.sampler.type = "DefaultSampler"
            made.train_cfg = {"by_epoch": True, "max_epochs": 4, "val_interval": 2}
        return made

    _train(config(tmp_path / "uncut"))
    cut = config(tmp_path / "cut")
    cut.custom_hooks.append({"type": "AccidentInValidation", "iteration": 16 if by_epoch else ITERATIONS})
    with pytest.raises(InterruptedError):
        _train(cut)
    cut = config(tmp_path / "cut")
    cut.resume = True
    _train(cut)
    name = "epoch_4.pth" if by_epoch else "iter_24.pth"
    one, other = (read_checkpoint(tmp_path / folder / name) for folder in ("cut", "uncut"))
    assert differences(without_times(one), without_times(other)) == []


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """A forked process lacks the threads that its parent's operations have begun, and would wait for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _begun(config: Config) -> int:
    """A process that takes up the run in the work dir; its id."""
    child = os.fork()
    if child:
        return child
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        config.resume = True
        _train(config)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.usefixtures("_one_thread")
def test_a_run_that_is_killed_again_and_again_ends_as_the_uncut_one(tmp_path: Path) -> None:
    """With one checkpoint kept, and a save after each iteration and validation."""
    options = {"interval": 1, "max_keep_ckpts": 1, **_BEST}
    _train(_config(tmp_path / "uncut", **options))
    begun = time.monotonic()
    os.waitpid(_begun(_config(tmp_path / "timed", **options)), 0)
    whole = time.monotonic() - begun
    killed, chance, done, kills, patience = tmp_path / "killed", random.Random(1), 0, 0, 1.0
    while done < ITERATIONS:
        child = _begun(_config(killed, **options))
        time.sleep(patience * whole * chance.uniform(0.1, 0.4))
        os.kill(child, signal.SIGKILL)
        kills += os.waitpid(child, 0)[1] != 0
        latest = latest_checkpoint(killed)
        now = 0 if latest is None else read_checkpoint(latest)["meta"]["iter"]
        assert now >= done
        patience = 1.0 if now > done else 2 * patience  # a slow machine must get somewhere, too
        done = now
    assert kills >= 1
    child = _begun(_config(killed, **options))
    assert os.waitpid(child, 0)[1] == 0
    assert _files(killed) >= _files(tmp_path / "uncut")
    one, other = (read_checkpoint(folder / "iter_24.pth") for folder in (killed, tmp_path / "uncut"))
    assert differences(without_times(one), without_times(other)) == []

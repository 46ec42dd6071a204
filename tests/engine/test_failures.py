"""What goes wrong under a run is named in one line, and the last good checkpoint stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from random_run import RandomData, random_config
from tiny_segmentation import write_segmentation
from torch.utils.data import DataLoader, Dataset, get_worker_info

from visionattn.cli.errors import as_answer
from visionattn.engine.checkpoint import latest_checkpoint
from visionattn.engine.config import load_config
from visionattn.engine.failures import name_failure
from visionattn.engine.runner import Runner
from visionattn.weights.durable import verify


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk is mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@DATASETS.register_module()
class DeadlyData(RandomData):
    """Its worker is killed at the fortieth sample, as by a system that is out of memory."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        assert self.record is not None
        if get_worker_info() is not None and Path(self.record).read_text().count("\n") > 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class HeldData(Dataset[int]):
    """Its worker is held at the second sample: killed elsewhere it may die with the lock of the event that ends it."""

    def __init__(self) -> None:
        self.held = multiprocessing.Event()

    def __getitem__(self, index: int) -> int:
        if index == 1:
            self.held.set()
            time.sleep(300)
        return index

    def __len__(self) -> int:
        return 100


class At(Hook):
    """Calls a function before an iteration."""

    def __init__(self, iteration: int, function: Any) -> None:
        self.iteration, self.function = iteration, function

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx + 1 == self.iteration:
            self.function()


def _answer(config: Config, *hooks: Hook) -> str:
    """The one line that the command would print."""
    runner = Runner.from_cfg(config)
    for hook in hooks:
        runner.register_hook(hook)
    with pytest.raises((OSError, ValueError)) as caught:
        runner.train()
    answer = as_answer(caught.value)
    assert answer is not None, caught.value
    assert "\n" not in answer
    return answer


def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    config = random_config(tmp_path / "run", workers=2, record=tmp_path / "read")
    config.train_dataloader.dataset.type = "DeadlyData"
    (tmp_path / "read").touch()
    answer = _answer(config)
    good = latest_checkpoint(tmp_path / "run")
    assert good is not None
    assert answer.startswith("a loader worker (pid")
    assert answer.endswith(
        "was killed, most often because the memory ran out: lower num_workers or batch_size, "
        f"then go on from {good} by --resume auto"
    )


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()], ids=repr)
def test_a_worker_whose_connection_ends_before_its_death_is_known(tmp_path: Path, error: OSError | EOFError) -> None:
    data = HeldData()
    batches = iter(DataLoader(data, num_workers=1))
    next(batches)
    assert data.held.wait(60)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        worker = batches._workers[0]  # type: ignore[attr-defined]
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(ChildProcessError, match=rf"a loader worker \(pid {worker.pid}\) was killed"):
            name_failure(error, tmp_path)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


class HidingHook(Hook):
    """A worker's death, told in the midst of a clean-up whose own error comes up in its place."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        try:
            raise RuntimeError("DataLoader worker (pid 16302) is killed by signal: Killed. ")
        finally:
            raise KeyError("unexpected pos 64 vs 0")


def test_a_worker_whose_death_another_error_hides(tmp_path: Path) -> None:
    answer = _answer(random_config(tmp_path / "run"), HidingHook())
    assert answer.startswith("a loader worker (pid 16302) was killed, most often")


def test_a_connection_that_ends_without_a_death_is_left_as_it_is(tmp_path: Path) -> None:
    name_failure(ConnectionResetError(104, "Connection reset by peer"), tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cut", [0, 30, pytest.param(60, marks=pytest.mark.slow)])
def test_an_image_that_is_cut_off(cut: int, workers: int, tmp_path: Path) -> None:
    config = load_config(write_segmentation(tmp_path))
    config.work_dir = str(tmp_path / "run")
    config.train_dataloader.num_workers = workers
    config.default_hooks.checkpoint.interval = 1
    image = tmp_path / "data" / "images" / "3.png"

    def cut_off() -> None:
        image.write_bytes(image.read_bytes()[:cut])

    answer = _answer(config, At(4, cut_off))
    assert answer == f"{image} cannot be decoded as an image; replace the file or take it out of the list"
    good = latest_checkpoint(tmp_path / "run")
    assert good is not None
    assert int(Path(good).stem.removeprefix("iter_")) >= 4


def test_a_disk_that_becomes_full(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fill() -> None:
        with open(small_disk / "filler", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    answer = _answer(random_config(small_disk / "run"), At(7, fill))
    assert answer.startswith("No space left on device")
    assert str(small_disk / "run") in answer
    good = latest_checkpoint(small_disk / "run")
    assert good == str(small_disk / "run" / "iter_6.pth")
    assert verify(good)
    assert "Traceback" not in capsys.readouterr().err
    (small_disk / "filler").unlink()
    config = random_config(small_disk / "run", resume=True)
    config.default_hooks.checkpoint.max_keep_ckpts = 2
    Runner.from_cfg(config).train()


def test_a_disk_that_becomes_read_only(small_disk: Path, tmp_path: Path) -> None:
    def protect() -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    config = random_config(tmp_path / "run")
    config.default_hooks.checkpoint.out_dir = str(small_disk)
    answer = _answer(config, At(7, protect))
    assert answer.startswith("Read-only file system; not written, what was there before is as it was: ")
    good = latest_checkpoint(tmp_path / "run")
    assert good == str(small_disk / "run" / "iter_6.pth")
    assert verify(good)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # the superuser may write to any folder
    with pytest.raises(OSError) as caught:
        Runner.from_cfg(random_config(tmp_path / "file" / "run"))
    assert as_answer(caught.value) == f"Not a directory: {tmp_path / 'file' / 'run'}"

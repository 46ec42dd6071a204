"""Files are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from visionattn.weights import durable
from visionattn.weights.durable import MANIFEST, read_manifest, remove, save_durably, verify
from visionattn.weights.reading import read_checkpoint


def _content(number: int) -> dict[str, torch.Tensor]:
    return {"number": torch.full((2000,), float(number))}


def test_the_manifest_is_sha256sums_own(tmp_path: Path) -> None:
    for name in ("iter_4.pth", "best mIoU.pth"):
        save_durably(_content(1), tmp_path / name)
    done = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["iter_4.pth: OK", "best mIoU.pth: OK"]
    assert {file.name for file in tmp_path.iterdir()} == {"iter_4.pth", "best mIoU.pth", MANIFEST}
    remove(tmp_path / "iter_4.pth")
    remove(tmp_path / "never.pth")
    assert {file.name for file in tmp_path.iterdir()} == {"best mIoU.pth", MANIFEST}
    assert list(read_manifest(tmp_path)) == ["best mIoU.pth"]


def test_a_changed_bit_is_found_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "iter_4.pth"
    save_durably(_content(1), path)
    assert verify(path)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"\x80?\x00\x00\x80?") + 1] ^= 1  # within a tensor: torch itself reads it
    path.write_bytes(damaged)
    assert not torch.equal(torch.load(path)["number"], _content(1)["number"])
    with pytest.raises(ValueError, match=r"iter_4\.pth is damaged: its sha256 is \w{12}\.\.\., .*\.sha256 has"):
        read_checkpoint(path)


def test_files_that_no_manifest_lists_are_read(tmp_path: Path) -> None:
    save_durably(_content(1), tmp_path / "listed.pth")
    torch.save(_content(2), tmp_path / "other.pth")
    assert not verify(tmp_path / "other.pth")
    assert torch.equal(read_checkpoint(tmp_path / "other.pth")["number"], _content(2)["number"])


@pytest.mark.parametrize("step", ["_write_manifest", "os.replace", "os.fsync"])
def test_a_write_that_fails_leaves_what_was_there(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "iter_4.pth"
    save_durably(_content(1), path)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(f"visionattn.weights.durable.{step}", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_durably(_content(2), path)
    monkeypatch.undo()
    assert torch.equal(read_checkpoint(path)["number"], _content(1)["number"])
    assert {file.name for file in tmp_path.iterdir()} == {"iter_4.pth", MANIFEST}


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk's: it needs no mount."""
    path = tmp_path / "iter_4.pth"
    save_durably(_content(1), path)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large; not written, what was there before is as it was") as caught:
            save_durably({"large": torch.ones(50_000)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.filename == str(path)
    assert torch.equal(read_checkpoint(path)["number"], _content(1)["number"])
    assert {file.name for file in tmp_path.iterdir()} == {"iter_4.pth", MANIFEST}


def test_a_disk_that_is_full_indeed(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk is mounted by root only")
    try:
        save_durably(_content(1), tmp_path / "iter_4.pth")
        with pytest.raises(OSError, match="No space left on device; not written") as caught:
            save_durably({"large": torch.ones(100_000)}, tmp_path / "iter_8.pth")
        assert caught.value.errno == errno.ENOSPC
        assert verify(tmp_path / "iter_4.pth")
        assert {file.name for file in tmp_path.iterdir()} == {"iter_4.pth", MANIFEST}
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_leftovers_of_the_killed_go(tmp_path: Path) -> None:
    save_durably(_content(1), tmp_path / "iter_4.pth")
    (tmp_path / ".iter_8.pth.tmp").write_bytes(b"half")
    durable.remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"iter_4.pth", MANIFEST}


def _saving(folder: Path, save: Any) -> int:
    """A process that writes the two files of a folder over and over; its id."""
    child = os.fork()
    if child:
        return child
    try:
        for number in range(10**9):
            save(_content(number), folder / f"{number % 2}.pth")
    finally:
        os._exit(1)


def _killed(folder: Path, times: int, save: Any) -> int:
    """How often a file could not be read after the process that writes it was killed."""
    chance = random.Random(0)
    for name in ("0.pth", "1.pth"):
        save(_content(0), folder / name)
    lost = 0
    for _ in range(times):
        child = _saving(folder, save)
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for name in ("0.pth", "1.pth"):
            try:
                number = read_checkpoint(folder / name)["number"]
                assert number.unique().numel() == 1
            except (ValueError, OSError):
                lost += 1
        durable.remove_leftovers(folder)
    return lost


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_two_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    """Two files, so that the one is being written over while the other is the previous one; both are always whole."""
    assert _killed(tmp_path, 200, save_durably) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_kills_lose_files_that_are_written_in_place(tmp_path: Path) -> None:
    """What the test above would find, were files written as mmengine does."""
    assert _killed(tmp_path, 40, torch.save) > 0

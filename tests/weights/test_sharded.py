"""Checkpoints in parts: what was written comes back, a kill loses nothing, and an index is not believed."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile_files import write_hostile_files
from safetensors.torch import load_file
from torch import Tensor

from visionattn.weights.durable import MANIFEST, sha256
from visionattn.weights.reading import read_checkpoint
from visionattn.weights.sharded import INDEX, Box, StoredTensor, open_sharded, read_sharded, verify_sharded
from visionattn.weights.sharded_writing import (
    next_number,
    remove_sharded,
    remove_unfinished,
    write_index,
    write_part,
    write_rest,
)

KEYS = {("state_dict", "weight"): (5, 3), ("optimizer", "state", 0, "exp_avg"): (5, 3), ("state_dict", "scale"): ()}


def _whole(number: int) -> dict[tuple[str | int, ...], Tensor]:
    return {
        key: torch.arange(max(1, torch.Size(shape).numel()) * 1.0).view(shape) + 100 * number
        for key, shape in KEYS.items()
    }


def _rest(number: int) -> dict[str, Any]:
    weights: OrderedDict[str, Any] = OrderedDict(weight=None, mean=torch.full((2,), number), scale=None)
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    optimizer = {
        "state": {0: {"step": torch.tensor(number), "exp_avg": None}},
        "param_groups": [{"betas": (0.9, None)}],
    }
    return {"state_dict": weights, "optimizer": optimizer, "meta": {"iter": number}}


def _save(folder: Path, number: int = 1, processes: int = 2) -> None:
    """As the processes of a run do; rows are cut as torch cuts them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, turn = _whole(number), next_number(folder)
    rows = -(-5 // processes)
    parts = []
    for process in range(processes):
        pieces = {}
        for key, tensor in tensors.items():
            begin, end = min(5, process * rows), min(5, (process + 1) * rows)
            if tensor.dim() and begin < end:
                pieces[key] = (Box((begin, 0), (end - begin, 3)), tensor[begin:end])
            elif not tensor.dim() and process == 0:
                pieces[key] = (Box((), ()), tensor)
        parts.append(write_part(folder, turn, process, processes, pieces))
    written = write_rest(folder, turn, _rest(number))
    write_index(folder, written, parts, {key: (tensor.shape, tensor.dtype) for key, tensor in tensors.items()})


def _number(folder: Path) -> int:
    """Of a checkpoint that is all of one piece."""
    found = read_checkpoint(folder)
    number: int = found["meta"]["iter"]
    for (part, *inner), tensor in _whole(number).items():
        value = found[part]
        for key in inner:
            value = value[key]
        assert torch.equal(value, tensor)
    assert found["state_dict"]["mean"].tolist() == [number] * 2
    return number


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_what_was_written_comes_back(processes: int, tmp_path: Path) -> None:
    folder = tmp_path / "iter_4.sharded"
    _save(folder, 4, processes)
    assert _number(folder) == 4
    found = read_checkpoint(folder)
    assert list(found["state_dict"]) == ["weight", "mean", "scale"]
    assert found["state_dict"]._metadata == {"": {"version": 1}}
    assert found["optimizer"]["param_groups"] == [{"betas": (0.9, None)}]
    assert {path.name for path in folder.iterdir()} == {
        INDEX, "rest.0.pth", *(f"part-{process}-of-{processes}.0.safetensors" for process in range(processes)),
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {folder.name, MANIFEST}
    done = subprocess.run(["sha256sum", "-c", MANIFEST], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "iter_4.sharded/index.json: OK\n"
    assert verify_sharded(folder)


def test_the_library_reads_the_parts(tmp_path: Path) -> None:
    dtypes = [torch.float64, torch.bool, torch.bfloat16, torch.float32, torch.float16, torch.int8, torch.uint8,
              torch.int16, torch.int32, torch.int64]  # fmt: skip
    tensors = {("t", str(dtype)): (torch.randn(3, 5) * 9).to(dtype).T for dtype in dtypes}
    pieces = {key: (Box((0, 0), (5, 3)), tensor) for key, tensor in tensors.items()}
    part = write_part(tmp_path, 0, 0, 1, {**pieces, ("empty",): (Box((0,), (0,)), torch.empty(0))})
    found = load_file(tmp_path / part.name)
    assert set(found) == {"empty", *(f"t/{dtype}" for dtype in dtypes)}
    for (_, name), tensor in tensors.items():
        assert found[f"t/{name}"].dtype == tensor.dtype
        assert torch.equal(found[f"t/{name}"], tensor)
    with pytest.raises(TypeError, match=r"spectrum is torch\.complex64, which a sharded checkpoint cannot hold"):
        write_part(tmp_path, 1, 0, 1, {("spectrum",): (Box((2,), (2,)), torch.zeros(2, dtype=torch.complex64))})


def test_a_region_is_read_from_the_parts_that_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "a.sharded", 0, 3)
    stored = open_sharded(tmp_path / "a.sharded")["state_dict"]["weight"]
    assert isinstance(stored, StoredTensor)
    read = []
    keep = type(stored._files).read
    monkeypatch.setattr(type(stored._files), "read", lambda *args: read.append(args[1].name) or keep(*args))
    whole = _whole(0)["state_dict", "weight"]
    for row, column, height, width in [(0, 0, 5, 3), (1, 1, 3, 2), (3, 0, 1, 1), (4, 2, 0, 1)]:
        wanted = Box((row, column), (height, width))
        assert torch.equal(stored.region(wanted), whole[row : row + height, column : column + width])
    named = [f"part-{process}-of-3.0.safetensors" for process in (0, 1, 2, 0, 1, 1)]
    assert read == named


def test_written_over_it_is_the_new_one_and_no_more(tmp_path: Path) -> None:
    folder = tmp_path / "iter_4.sharded"
    _save(folder, 1, 3)
    _save(folder, 2, 2)
    assert _number(folder) == 2
    assert {path.name for path in folder.iterdir()} == {
        INDEX, "rest.1.pth", "part-0-of-2.1.safetensors", "part-1-of-2.1.safetensors",
    }  # fmt: skip
    (folder / "notes.txt").write_text("a person's")
    remove_sharded(folder)
    remove_sharded(tmp_path / "never.sharded")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    remove_sharded(folder)
    assert not folder.exists()
    assert (tmp_path / MANIFEST).read_text() == ""


def _stopped_at(step: int, work: Callable[[], None]) -> bool:
    """Whether a process that does the work was killed before its step-th call that changes the disk."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [step]

    def counted(call: Any) -> Any:
        def run(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return run

    for name in ("fsync", "replace", "unlink", "rmdir", "mkdir", "open"):
        setattr(os, name, counted(getattr(os, name)))
    work()
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_kill_at_any_step_leaves_what_was_there(tmp_path: Path) -> None:
    _save(tmp_path / "first" / "iter_4.sharded", 1)
    torch.set_num_threads(1)
    steps, killed, seen = 0, True, set()
    while killed:
        steps += 1
        folder = tmp_path / str(steps) / "iter_4.sharded"
        shutil.copytree(tmp_path / "first", folder.parent)
        killed = _stopped_at(steps, partial(_save, folder, 2))
        seen.add(found := _number(folder))
        assert verify_sharded(folder)
        remove_unfinished(folder.parent)
        assert _number(folder) == found
        assert len(list(folder.iterdir())) == 4
    assert steps > 15
    assert (seen, found) == ({1, 2}, 2)  # what was there, and in the end what is there now


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_kill_while_deleting_leaves_no_half(tmp_path: Path) -> None:
    _save(tmp_path / "first" / "iter_4.sharded", 1)
    steps, killed = 0, True
    while killed:
        steps += 1
        folder = tmp_path / str(steps) / "iter_4.sharded"
        shutil.copytree(tmp_path / "first", folder.parent)
        killed = _stopped_at(steps, partial(remove_sharded, folder))
        if (folder / INDEX).is_file():
            assert _number(folder) == 1
            continue
        with pytest.raises(FileNotFoundError):
            read_checkpoint(folder)
        remove_unfinished(folder.parent)
        assert not folder.exists()
    assert steps >= 4


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "iter_4.sharded"
    _save(folder, 1)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="not written, what was there before is as it was") as caught:
            write_part(folder, 1, 0, 1, {("large",): (Box((0,), (50_000,)), torch.ones(50_000))})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert _number(folder) == 1
    assert len(list(folder.iterdir())) == 4


def test_damage_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "iter_4.sharded"
    for name in ("part-1-of-2.0.safetensors", "rest.0.pth", INDEX):
        shutil.rmtree(folder, ignore_errors=True)
        _save(folder, 1)
        content = bytearray((folder / name).read_bytes())
        content[-2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"iter_4\.sharded/{name} is damaged: its sha256 is"):
            read_checkpoint(folder)
        with pytest.raises(ValueError, match="is damaged"):
            verify_sharded(folder)
    _save(folder, 2)
    (folder / "part-0-of-2.1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"iter_4\.sharded lacks part-0-of-2\.1\.safetensors: copy the whole folder"):
        read_checkpoint(folder)


def _lie(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a checkpoint's index, and that nobody lists it."""
    (folder.parent / MANIFEST).unlink()
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


_PIECE = 'index["tensors"][0]["pieces"][0]'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ('index.pop("files")', "it has no 'files'"),
        ('index.update(format=9)', "its format is 9, this version reads 1"),
        ('index.update(files=[])', "has no attribute 'items'"),
        ('index["files"].update({"../canary": ""})', "'../canary' is no file of the folder"),
        ('index["files"].update({"/etc/passwd": ""})', "'/etc/passwd' is no file of the folder"),
        ('index.update(rest="index.json")', "'index.json' is no file of the folder that it lists"),
        (f'{_PIECE}.update(file="../canary")', "'../canary' is no file of the folder that it lists"),
        (f'{_PIECE}.update(shape=[2, 3])', r"weight is \(\(3, 3\), 'F32'\) in part-0-of-2.*, not \(\(2, 3\), 'F32'\)"),
        (f'{_PIECE}.update(shape=["3", 3])', "cannot be interpreted as an integer"),
        (f'{_PIECE}.update(offset=[2, 0])', r"do not make up a tensor of \[5, 3\]"),
        (f'{_PIECE}.update(offset=[-1, 0])', r"\[-1, 0\] is no shape"),
        ('index["tensors"][0]["pieces"].pop()', r"do not make up a tensor of \[5, 3\]"),
        ('index["tensors"][0].update(shape=[10**15, 3])', "do not make up a tensor"),
        ('index["tensors"][0].update(shape=[0, -1], pieces=[])', r"\[0, -1\] is no shape"),
        ('index["tensors"][0].update(dtype="load")', "'load' is no dtype"),
        ('index["tensors"][0].update(dtype="I32")', r"not \(\(3, 3\), 'I32'\)"),
        ('index["tensors"][0].update(key=["state_dict", "other"])', "state_dict/other cannot be read from part-0-of-2"),
        ('index["tensors"][0].update(key=[["a"]])', "unhashable|cannot be read from"),
    ],
)  # fmt: skip
def test_an_index_is_not_believed(change: str, reason: str, tmp_path: Path) -> None:
    folder = tmp_path / "a.sharded"
    _save(folder)
    _lie(folder, lambda index: exec(change, {"index": index}))
    with pytest.raises(ValueError, match=rf"index\.json is no index of a sharded checkpoint: .*{reason}"):
        read_sharded(folder)


def test_an_index_that_is_no_json_or_has_too_much(tmp_path: Path) -> None:
    folder = tmp_path / "a.sharded"
    _save(folder)
    _lie(folder, lambda index: index["tensors"].append({**index["tensors"][2], "key": ["state_dict/scale"]}))
    with pytest.raises(ValueError, match=r"index\.json has state_dict/scale, for which rest\.0\.pth has no place"):
        read_sharded(folder)
    for text in (b"\x80\x04.", b"[1", b"[" * 100_000, b"3"):
        (folder / INDEX).write_bytes(text)
        with pytest.raises(ValueError, match=r"index\.json is no index of a sharded checkpoint"):
            read_sharded(folder)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["rest.0.pth", "part-0-of-2.0.safetensors"])
def test_hostile_parts_execute_nothing(name: str, tmp_path: Path) -> None:
    folder, canary = tmp_path / "a.sharded", tmp_path / "canary"
    hostile = write_hostile_files(tmp_path / "hostile", canary)
    assert len(hostile) >= 20
    for file in hostile:
        _save(folder)
        shutil.copy(file, folder / name)
        _lie(folder, lambda index: index["files"].update({name: sha256(folder / name)}))
        with pytest.raises(ValueError, match=r"refused|cannot be read"):
            read_sharded(folder)
        assert list(canary.iterdir()) == []
        shutil.rmtree(folder)

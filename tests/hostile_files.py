"""Weights files that execute something where an unrestricted unpickler reads them, and a process that watches one."""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import json
import os
import pickle
import runpy
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Call:
    """Pickles as a call of `function`: what reads it, makes the call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def write_hostile_files(folder: Path, canary: Path) -> list[Path]:
    """One file of each kind in `folder`; each tries to make `canary/<its stem>`."""
    folder.mkdir(parents=True, exist_ok=True)
    canary.mkdir(parents=True, exist_ok=True)
    weights = {"conv.weight": torch.ones(2, 2)}

    def touch(name: str) -> str:
        return f"touch {canary / name}"

    def write(name: str) -> str:
        return f"open({str(canary / name)!r}, 'w')"

    objects: dict[str, Any] = {
        "os_system": Call(os.system, touch("os_system")),
        "os_popen": Call(os.popen, touch("os_popen")),
        "eval": Call(builtins.eval, write("eval")),
        "exec": Call(builtins.exec, write("exec")),
        "open": Call(builtins.open, str(canary / "open"), "w"),
        "subprocess_popen": Call(subprocess.Popen, ["touch", str(canary / "subprocess_popen")]),
        "check_output": Call(subprocess.check_output, ["touch", str(canary / "check_output")]),
        "getattr": Call(functools.reduce, getattr, ["system"], Call(importlib.import_module, "os")),
        "partial": Call(functools.partial(os.system, touch("partial"))),
        "run_path": Call(runpy.run_path, _script(folder, write("run_path"))),
        "beside_weights": {"state_dict": weights, "meta": Call(os.system, touch("beside_weights"))},
        "inside_weights": {"state_dict": {**weights, "b": Call(os.system, touch("inside_weights"))}},
        "as_name": {"state_dict": {Call(os.system, touch("as_name")): torch.ones(1)}},
        "optimizer": {"state_dict": weights, "optimizer": {"state": [Call(os.system, touch("optimizer"))]}},
        "metadata": _with_metadata(weights, Call(os.system, touch("metadata"))),
        "object_array": {
            "state_dict": weights,
            "meta": np.array([Call(os.system, touch("object_array"))], dtype=object),
        },
    }
    paths = []
    for name, content in objects.items():
        torch.save(content, folder / f"{name}.pth")
        paths.append(folder / f"{name}.pth")
    system = Call(os.system, touch("legacy"))
    torch.save({"a": weights, "b": system}, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "bare_pickle.pth").write_bytes(pickle.dumps(Call(os.system, touch("bare_pickle")), protocol=2))
    (folder / "protocol_4.pt").write_bytes(pickle.dumps(Call(os.system, touch("protocol_4")), protocol=4))
    write_archive(folder / "archive.pt", pickle.dumps(Call(os.system, touch("archive")), protocol=2))
    (folder / "misnamed.safetensors").write_bytes(pickle.dumps(Call(os.system, touch("misnamed")), protocol=2))
    more = ("legacy.pth", "bare_pickle.pth", "protocol_4.pt", "archive.pt", "misnamed.safetensors")
    return paths + [folder / name for name in more]


def write_refused_files(folder: Path) -> list[Path]:
    """Files that call nothing of the attacker's, but rebuild objects, or are no weights at all."""
    from mmengine.logging import HistoryBuffer

    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"message_hub": {"loss": HistoryBuffer([1.0], [1])}}, folder / "history_buffer.pth")
    torch.save(nn.Linear(2, 2), folder / "module.pth")
    torch.save({"meta": np.array([None, "x"], dtype=object)}, folder / "object_array.pth")
    torch.save({"meta": np.zeros(2, dtype=[("a", "f8"), ("b", "O")])}, folder / "structured_array.pth")
    write_archive(folder / "dtype_flags.pth", object_pointers())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated, its files are still about
        torch.jit.script(nn.Linear(2, 2)).save(str(folder / "torchscript.pt"))
    torch.save([torch.ones(2)], folder / "list.pth")
    (folder / "text.pth").write_text("weights")
    (folder / "empty.pth").write_bytes(b"")
    torch.save({"a": torch.ones(99)}, folder / "whole.pth")
    (folder / "truncated.pth").write_bytes((folder / "whole.pth").read_bytes()[:-200])
    (folder / "whole.pth").unlink()
    with tarfile.open(folder / "tar.pth", "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    (folder / "header.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{}")
    return sorted(folder.iterdir())


def object_pointers() -> bytes:
    """A pickled object array whose dtype clears its own flags: numpy would take the bytes "AAAAAAAA" for a pointer."""
    dtype = b"cnumpy\ndtype\n" + b"X\x01\x00\x00\x00O\x89\x88\x87R"  # dtype("O", False, True)
    state = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # flags = 0
    array = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tc_codecs\nencode\n"
    array += b"(X\x01\x00\x00\x00bX\x06\x00\x00\x00latin1tRtR"
    data = b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tR"
    return b"\x80\x02" + array + b"(K\x01(K\x01t" + dtype + state + b"\x89" + data + b"tb."


def write_archive(path: Path, pickled: bytes) -> None:
    """A file in torch's zip format whose data.pkl is `pickled`."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")


Seen = dict[Path, tuple[str, list[str], list[str]]]


def watch(readers: Sequence[str], paths: Sequence[Path], good: Path, canary: Path) -> list[Seen]:
    """What each reader makes of each file, and the suspicious things that Python saw meanwhile, in one process.

    Args:
        readers: sources that define read(path), one after the other.
        paths: the files to read.
        good: a file that reads well; read first, so that everything lazily imported is there.
        canary: the folder that the files write to.
    Returns:
        Of each reader, by file: "loaded" or the error; the audit events; the names of files made in `canary`.
    """
    files = [str(path) for path in paths]
    script = _WATCHED.format(readers=list(readers), good=str(good), paths=files, canary=str(canary))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line.removeprefix("WATCHED ") for line in done.stdout.splitlines() if line.startswith("WATCHED ")]
    assert len(lines) == len(paths) * len(readers)
    seen: list[Seen] = [{} for _ in readers]
    for number, path, outcome, events, made in map(json.loads, lines):
        seen[number][Path(path)] = (outcome, events, made)
    return seen


_WATCHED = """
import json, os, sys, warnings
warnings.simplefilter("ignore")

def outcome(read, path):
    try:
        read(path)
    except BaseException as error:
        return f"{{type(error).__name__}}: {{error}}"
    return "loaded"

SUSPICIOUS = {{"os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "compile"}}
events = []

def hook(event, args):
    if event in SUSPICIOUS or (event == "open" and isinstance(args[1], str) and args[1][:1] in "wax"):
        events.append(event)

readers = []
for source in {readers!r}:
    names = {{}}
    exec(source, names)
    readers.append(names["read"])
    outcome(readers[-1], {good!r})
outcome(readers[0], {paths!r}[0])  # the first refusal imports what refusals need
sys.addaudithook(hook)
for number, read in enumerate(readers):
    for path in {paths!r}:
        events.clear()
        result = outcome(read, path)
        seen = list(events)
        print("WATCHED", json.dumps([number, path, result, seen, os.listdir({canary!r})]), flush=True)
"""


def _script(folder: Path, source: str) -> str:
    (folder / "script.py").write_text(source)
    return str(folder / "script.py")


def _with_metadata(weights: dict[str, Any], value: Any) -> OrderedDict[str, Any]:
    state = OrderedDict(weights)
    state._metadata = value  # type: ignore[attr-defined]
    return state

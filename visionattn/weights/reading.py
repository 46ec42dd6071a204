"""What a weights file holds, from files that may come from anywhere: safetensors, or pickles of tensors and plain data.

A pickle is read by `torch.load(weights_only=True)` with the types of `INERT_TYPES` and no others; there is no way back
to an unrestricted unpickler.
"""

from __future__ import annotations

import errno
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from visionattn.weights.durable import verify
from visionattn.weights.inert import INERT_TYPES
from visionattn.weights.sharded import is_sharded, read_sharded

_STATE_DICT_KEYS = ("state_dict", "model", "module", "state_dict_ema", "model_ema", "teacher")
"""The first that is there counts: averaged weights and a teacher's only where the trained ones are not in the file."""
_WRAPPERS = ("_orig_mod.", "module.", "_orig_mod.")
"""What torch.compile and data parallelism put before every name, whichever was applied last."""
_ALLOW_LIST = Lock()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a .safetensors file, a torch checkpoint, or the folder of a sharded one holds, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged (by the sha256 sum where its folder's manifest has one, else by the CRC-32 sums
            of a torch archive), or rebuilding it would run code that it names.
    """
    path = Path(path).expanduser()
    if is_sharded(path):
        return read_sharded(path)
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"checkpoint {path} {what}; give the path of a .pth or .safetensors file")
    listed = verify(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not listed:
        _check_archive(path)
    try:
        with _only_inert_types():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a hostile pickle may raise anything
        raise ValueError(_refusal(path, error)) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dict of tensors or a checkpoint dict")
    return dict(content) if type(content) is not OrderedDict else content


def find_state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names and tensors of a checkpoint, without a wrapper's "module." or "_orig_mod." before every name.

    Raises:
        ValueError: it holds no tensors by name.
    """
    nested = [checkpoint[key] for key in _STATE_DICT_KEYS if isinstance(checkpoint.get(key), Mapping)]
    state: Mapping[str, Any] = nested[0] if nested else checkpoint
    if not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise ValueError(
            f"no weights found: expected tensors by name, or under {', '.join(_STATE_DICT_KEYS)}; got {keys}"
        )
    for wrapper in _WRAPPERS:
        if all(str(name).startswith(wrapper) for name in state):
            state = below(wrapper, state)
    return state


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state dict whose names begin with the prefix, without it.

    Raises:
        ValueError: no name begins so.
    """
    found = OrderedDict((name[len(prefix) :], value) for name, value in state.items() if name.startswith(prefix))
    if not found:
        raise ValueError(f"no name begins with {prefix!r}; the first is {next(iter(state))!r}")
    if hasattr(state, "_metadata"):
        found._metadata = {  # type: ignore[attr-defined]
            name[len(prefix) :]: value for name, value in state._metadata.items() if name.startswith(prefix)
        }
    return found


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file: {_first_sentence(error)}") from error


def _check_archive(path: Path) -> None:
    """Raises ValueError if a part of a torch archive has not its own sum; torch itself does not look at the sums."""
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # what torch does not read as an archive: the legacy format has no sums
    part = "its archive"
    try:
        with zipfile.ZipFile(path) as archive:
            # torch.serialization.set_crc32_options(False) writes zeros for sums.
            for info in (info for info in archive.infolist() if info.CRC):
                part = f"its part {info.filename!r}"
                with archive.open(info) as content:
                    while content.read(1 << 20):
                        pass
    except Exception as error:  # a damaged archive may raise anything, EINVAL for an offset before the file's start
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        reason = _first_sentence(error)
        raise ValueError(f"{path} is damaged: {part} cannot be read: {reason}; copy it anew") from error


@contextmanager
def _only_inert_types() -> Iterator[None]:
    """torch's allow-list is global and anyone may have added to it: for this block it is ours alone."""
    with _ALLOW_LIST:
        others = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([(build, name) for name, build in INERT_TYPES.items()])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(others)


def _refusal(path: Path, error: Exception) -> str:
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named is None:
        return (
            f"{path} cannot be read as weights (another kind of file, damaged, or cut short?): {_first_sentence(error)}"
        )
    return (
        f"{path} holds {named[1].rstrip('.,')}, and reading it would run code that the file names: refused; "
        "where you trust the file, save its state dict with safetensors.torch.save_file and load that"
    )


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    # torch's own message for unknown types comes with pages of advice, one of it being to switch the safety off.
    text = text.rpartition("WeightsUnpickler error:")[2].strip() or text
    if isinstance(error, KeyError) or not text:  # the key alone says nothing
        text = f"{type(error).__name__} {text}".strip()
    return re.split(r"(?<=[a-z)])\. ", text)[0]

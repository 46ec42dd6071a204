"""Weights from files that may come from anywhere: safetensors, or pickles of tensors and plain data.

A pickle is read by `torch.load(weights_only=True)` with the types of `INERT_TYPES` and no others; there is no way back
to an unrestricted unpickler.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from visionattn.weights.durable import verify
from visionattn.weights.inert import INERT_TYPES

_STATE_DICT_KEYS = ("state_dict", "model", "module")
_ALLOW_LIST = Lock()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a .safetensors file or a torch checkpoint holds, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is damaged (also by the sha256 sum, where its folder's manifest has one), or rebuilding it
            would run code that it names.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        what = "is a folder, not a weights file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"checkpoint {path} {what}; give the path of a .pth or .safetensors file")
    verify(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
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


@dataclass(frozen=True)
class LoadReport:
    """How a file's tensors met a model's.

    Attributes:
        matched: names that were loaded.
        missing: names of the model that the file lacks.
        unexpected: names of the file that the model lacks.
        mismatched: names in both whose shapes differ, with "[file's shape], expected [model's shape]".
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, str]

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors match"]
        if self.missing:
            parts.append(f"{len(self.missing)} missing (first: {self.missing[0]})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected (first: {self.unexpected[0]})")
        if self.mismatched:
            name, shapes = next(iter(self.mismatched.items()))
            parts.append(f"{len(self.mismatched)} of another shape (first: {name} {shapes})")
        return ", ".join(parts)


def load_checkpoint(model: nn.Module, path: str | Path, *, strict: bool = True, prefix: str = "") -> LoadReport:
    """Loads a file's weights into the model and says how they met.

    Args:
        model: receives the weights, on whatever device it is.
        path: .safetensors, or a torch checkpoint: a state dict or a dict with one under state_dict, model or module.
        strict: every name and shape must fit; False loads those that do.
        prefix: takes only the names that begin so, and cuts it off ("backbone." for a segmentor's backbone).
    Raises:
        FileNotFoundError: no such file.
        ValueError: the file cannot be read safely, holds no weights, or belongs to another model.
    """
    try:
        state = find_state_dict(read_checkpoint(path))
        if prefix:
            state = _below(prefix, state)
        return load_state_dict(model, state, strict=strict)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(path)) else f"{path}: {message}") from error


def find_state_dict(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names and tensors of a checkpoint, without a wrapper's "module." before every name.

    Raises:
        ValueError: it holds no tensors by name.
    """
    nested = [checkpoint[key] for key in _STATE_DICT_KEYS if isinstance(checkpoint.get(key), Mapping)]
    state: Mapping[str, Any] = nested[0] if nested else checkpoint
    if not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(map(str, list(checkpoint)[:5])) or "nothing"
        raise ValueError(
            f"no weights found: expected tensors by name, or under state_dict, model or module, got {keys}"
        )
    if all(str(name).startswith("module.") for name in state):
        state = _below("module.", state)
    return state


def load_state_dict(model: nn.Module, state: Mapping[str, Any], *, strict: bool = True) -> LoadReport:
    """Loads tensors by name; with strict, a state dict that does not fit leaves the model as it was.

    Raises:
        ValueError: strict and something does not fit, or nothing fits at all.
    """
    report = compare(model.state_dict(), state)
    if not report.matched or (strict and not report.complete):
        advice = "" if not report.matched else "; strict=False loads what matches"
        raise ValueError(f"the weights belong to another model than {type(model).__name__}: {report}{advice}")
    kept = OrderedDict((name, value) for name, value in state.items() if name not in report.mismatched)
    if hasattr(state, "_metadata"):  # versions of the modules that wrote it: torch upgrades old layouts by them
        kept._metadata = state._metadata  # type: ignore[attr-defined]
    model.load_state_dict(kept, strict=False)
    return report


def compare(own: Mapping[str, Any], state: Mapping[str, Any]) -> LoadReport:
    """How the names and shapes of `state` meet those of a model's state dict `own`."""
    mismatched = {
        name: f"{list(value.shape)}, expected {list(own[name].shape)}"
        for name, value in state.items()
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
    }
    return LoadReport(
        matched=tuple(name for name in state if name in own and name not in mismatched),
        # Batch norms that were saved before they counted their batches: torch starts the count at zero.
        missing=tuple(name for name in own if name not in state and not name.endswith("num_batches_tracked")),
        unexpected=tuple(name for name in state if name not in own),
        mismatched=mismatched,
    )


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
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
    return re.split(r"(?<=[a-z)])\. ", text)[0] or type(error).__name__

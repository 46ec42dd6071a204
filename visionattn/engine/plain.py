"""Run state as plain data, tensors, numbers, strings, lists and dicts: a checkpoint of it executes nothing."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, MessageHub, print_log
from torch import Tensor

_ATOMS = (str, int, float, bool, type(None))


def plain(value: Any, name: str = "value") -> Any:
    """`value` as plain data on the CPU; equal to it where it is plain data already.

    Args:
        value: nested dicts, lists, tuples and sets of tensors, arrays, numbers and strings.
        name: how errors call it.
    Raises:
        TypeError: something in it is of another type.
    """
    if type(value) in _ATOMS or isinstance(value, torch.dtype | torch.device | torch.Size):
        return value
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, name)
    if isinstance(value, Enum):
        return plain(value.value, name)
    for atom in (bool, int, float, str):  # their subclasses
        if isinstance(value, atom):
            return atom(value)
    if isinstance(value, Sequence | AbstractSet):
        items = [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else set(items) if isinstance(value, AbstractSet) else items
    raise TypeError(f"{name} is a {type(value).__module__}.{type(value).__name__}, which a checkpoint cannot hold")


def _plain_mapping(value: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    items = ((plain(key, name), plain(item, f"{name}.{key}")) for key, item in value.items())
    if not (isinstance(value, OrderedDict) and hasattr(value, "_metadata")):
        return dict(items)
    state = OrderedDict(items)  # a module's state dict: torch upgrades old layouts by the versions in _metadata
    state._metadata = plain(value._metadata, f"{name}._metadata")  # type: ignore[attr-defined]
    return state


def plain_items(state: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Those entries of `state` that are plain data; what is left out is logged by name."""
    kept = {}
    for key, value in state.items():
        try:
            kept[key] = plain(value, f"{name}.{key}")
        except TypeError as error:
            print_log(f"{error}: left out", logger="current", level=logging.WARNING)
    return kept


def plain_scheduler(state: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter scheduler's state without the functions that it is built with."""
    return {key: plain(value, f"param_schedulers.{key}") for key, value in state.items() if not callable(value)}


def plain_message_hub(hub: MessageHub) -> dict[str, Any]:
    """What a run's message hub must find again: scalars' histories as tensors, information as plain data."""
    state = hub.state_dict()
    histories = {}
    for key, buffer in state["log_scalars"].items():
        values, counts = (torch.from_numpy(np.array(part)) for part in buffer.data)
        histories[key] = {"values": values, "counts": counts, "max_length": buffer.max_length}
    info = plain_items(state["runtime_info"], "message_hub")
    kept = {key: resumed for key, resumed in state["resumed_keys"].items() if key in histories or key in info}
    return {"log_scalars": histories, "runtime_info": info, "resumed_keys": kept}


def restore_message_hub(hub: MessageHub, state: Mapping[str, Any]) -> None:
    """Fills the message hub from `plain_message_hub`'s dict."""
    histories = {
        key: HistoryBuffer(part["values"].numpy(), part["counts"].numpy(), part["max_length"])
        for key, part in state["log_scalars"].items()
    }
    resumed = dict.fromkeys(state["resumed_keys"], True)
    hub.load_state_dict({"log_scalars": histories, "runtime_info": state["runtime_info"], "resumed_keys": resumed})

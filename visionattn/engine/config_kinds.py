"""What a dict of a config stands for: by its `type`, by its key, or by what mmengine takes where it says nothing."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner as MMEngineRunner
from torch.utils.data import DataLoader

from visionattn.engine.registered import find_type, root_registry

Key = tuple[str, ...]

PARTS = ("model", "tta_model", "data_preprocessor", "model_wrapper_cfg", "train_dataloader", "val_dataloader",
         "test_dataloader", "train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler", "val_evaluator",
         "test_evaluator", "default_hooks", "custom_hooks", "visualizer", "log_processor")  # fmt: skip
"""The top-level entries that a Runner builds; any other is a variable or a plain option."""

# Which registry an entry of this name is of, and all below it that no other name here claims.
_REGISTRIES = {
    "model": "model",
    "tta_model": "model",
    "data_preprocessor": "model",
    "model_wrapper_cfg": "model_wrapper",
    "attention": "attention",
    "init_cfg": "weight initializer",
    "dataset": "dataset",
    "datasets": "dataset",
    "batch_sampler": "data sampler",
    "pipeline": "transform",
    "transforms": "transform",
    "collate_fn": "function",
    "worker_init_fn": "function",
    "optim_wrapper": "optim_wrapper",
    "optimizer": "optimizer",
    "param_scheduler": "parameter scheduler",
    "val_evaluator": "metric",
    "test_evaluator": "metric",
    "default_hooks": "hook",
    "custom_hooks": "hook",
    "visualizer": "visualizer",
    "vis_backends": "vis_backend",
    "log_processor": "log_processor",
}
LOOPS = ("train_cfg", "val_cfg", "test_cfg")
# What a builder takes out of a dict before its type sees it.
_FOR_THE_BUILDER = {
    "optim_wrapper": {"optimizer", "constructor", "paramwise_cfg"},
    "parameter scheduler": {"convert_to_iter_based"},
    "hook": {"priority"},
}
_FOR_THE_LOADER = {"dataset", "num_batch_per_epoch", "disable_subprocess_warning"}


def registry_name(key: Key) -> str | None:
    """The name of the registry that a dict at this key is of; None where it is of none."""
    if key[0] in LOOPS:
        return "loop"
    for depth in range(len(key), 0, -1):
        name = key[depth - 1]
        if name == "sampler":
            return "data sampler" if key[0].endswith("_dataloader") else "task util"
        if name in _REGISTRIES:
            return _REGISTRIES[name]
    return None


def kind_of(config: Config, key: Key, entry: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The class or function that the dict at this key is built into; None if there is none, or none is registered."""
    scope = config.get("default_scope", "mmengine")
    named = entry.get("type", _implied(key, entry))
    if not isinstance(named, str):
        return named
    name = registry_name(key)
    registry = root_registry(name) if name else None
    return None if registry is None else find_type(named, registry, scope)


def keywords_of_the_builder(key: Key) -> set[str]:
    """Entries of the dict at this key that its type never sees."""
    if len(key) == 1 and key[0].endswith("_dataloader"):
        return set(_FOR_THE_LOADER)
    taken = {"type", "_scope_"} | _FOR_THE_BUILDER.get(registry_name(key) or "", set())
    return taken | {"requires_grad"} if key[-1] == "norm_cfg" else taken


def dicts_of(config: Config) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """Every dict of what a Runner builds, outer ones first."""
    for part in PARTS:
        yield from dicts_below(config.get(part), (part,))


def dicts_below(value: Any, key: Key) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield key, value
        for name, entry in value.items():
            yield from dicts_below(entry, (*key, str(name)))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from dicts_below(entry, (*key, str(index)))


def owner_of(config: Config, key: Key) -> tuple[Callable[..., Any] | None, str]:
    """What takes the value at this key as a keyword, and the keyword: of model.backbone.depth, ResNet and "depth".

    An option inside a plain dict (timm_options.img_size) is that dict's owner's.
    """
    values: list[Any] = [config._cfg_dict.to_dict()]
    for part in key[:-1]:
        values.append(_entry(values[-1], part))
    for depth in range(len(key) - 1, 0, -1):
        holder = values[depth]
        if isinstance(holder, Mapping):
            kind = kind_of(config, key[:depth], holder)
            if kind is not None:
                return kind, key[depth]
    return (MMEngineRunner, key[0]) if key[0] in inspect.signature(MMEngineRunner).parameters else (None, key[-1])


def keyword_doc(kind: Callable[..., Any], keyword: str) -> str | None:
    """What the docstring of a type, or of one above it, says of a keyword: the first sentence."""
    owners = kind.__mro__ if inspect.isclass(kind) else (kind,)
    for owner in owners:
        for source in (owner, vars(owner).get("__init__") if inspect.isclass(owner) else None):
            text = _in_args(inspect.getdoc(source) or "", keyword) if source is not None else None
            if text:
                return text
    return None


def _in_args(doc: str, keyword: str) -> str | None:
    """Google's and torch's style: "name (type): text", "one, other: text"; the lines below that are further in."""
    lines = doc.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r"(\s*)((?:[*\w]+, )*[*\w]+)\s*(?:\(.*?\))?\s*:\s+?(\S.*)?$", line)
        if not found or keyword not in found[2].replace("*", "").split(", "):
            continue
        text = [found[3] or ""]
        for below in lines[number + 1 :]:
            if not below.strip() or len(below) - len(below.lstrip()) <= len(found[1]):
                break
            text.append(below.strip())
        sentence = re.split(r"(?<=[a-z\d)}\]`'\"])\.(?:\s|$)", " ".join(text).strip())[0]
        return sentence.strip() or None
    return None


def _implied(key: Key, entry: Mapping[str, Any]) -> Any:
    """What mmengine builds of a dict that says no type."""
    if len(key) == 1 and key[0].endswith("_dataloader"):
        return DataLoader
    if key == ("train_cfg",):
        return "EpochBasedTrainLoop" if entry.get("by_epoch") else "IterBasedTrainLoop"
    plain = {"val_cfg": "ValLoop", "test_cfg": "TestLoop", "optim_wrapper": "OptimWrapper"}
    if len(key) == 1 and key[0] == "log_processor":
        return "visionattn.LogProcessor"
    return plain.get(key[0]) if len(key) == 1 else None


def _entry(value: Any, part: str) -> Any:
    if isinstance(value, Mapping):
        return next((entry for name, entry in value.items() if str(name) == part), None)
    if isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value):
        return value[int(part)]
    return None


def value_at(config: Config, key: Key) -> Any:
    """The value at this key.

    Raises:
        KeyError: there is none.
    """
    value: Any = config._cfg_dict.to_dict()
    for part in key:
        names = [str(name) for name in value] if isinstance(value, Mapping) else []
        items = isinstance(value, list | tuple) and part.isdigit() and int(part) < len(value)
        if part not in names and not items:
            raise KeyError(".".join(key))
        value = _entry(value, part)
    return value

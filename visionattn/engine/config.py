"""Config files by path or by name."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.runner import Runner

import visionattn
from visionattn.engine.registered import nearest

# `_base_ = ["mmseg::pspnet/..."]` asks for a distribution; OneDL's has another name than mmengine knows.
MODULE2PACKAGE["mmseg"] = "onedl-mmsegmentation"

# What mmengine's Runner, ours, testing and predicting read from a config beside the Runner's own arguments.
_READ = {"activation_checkpointing", "compile", "data_root", "efficient_conv_bn_eval", "find_unused_parameters",
         "load_strict", "model_wrapper_cfg", "sync_bn", "test_pipeline", "tta_model", "tta_pipeline"}  # fmt: skip


def load_config(name: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """The config called `name`, with `options` put over it.

    Args:
        name: a path, or a name in the configs of the checkout or of the installed package, with or without ".py"
            ("quickstart/segmentation").
        options: values by dotted key, as `--cfg-options` gives them; a dict replaces what was there; data_root is every
            dataset's.
    Raises:
        FileNotFoundError: no such config; the message has the nearest names.
        ValueError: the file is no valid config, an option does not fit into it, or nothing would read it.
    """
    path = find_config(name)
    try:
        config = Config.fromfile(path)
    except Exception as error:  # a config is a program
        raise ValueError(f"{path} is no valid config: {type(error).__name__}: {error}") from error
    if options:
        _refuse_unread(config, options)
        for key, value in options.items():
            try:
                first, *inner = key.split(".")
                config[first] = _with_value(config.get(first), inner, value)
            except LookupError as error:
                raise ValueError(f"an option does not fit into {path}: {key}: {error.args[0]}") from error
        if "data_root" in options:
            for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
                _set_data_root(config.get(loader), options["data_root"])
    return config


def _refuse_unread(config: Config, options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option whose first key is none of the config's and none that a run reads."""
    known = [*config, *(set(inspect.signature(Runner).parameters) - {"cfg"} | _READ)]
    for key in options:
        first = key.partition(".")[0]
        if first not in known:
            close = ", ".join(nearest(first, known))
            raise ValueError(
                f"{key} (--cfg-options): {config.filename} has no {first!r} and no run reads it; nearest: {close}"
            )


def _with_value(holder: Any, key: Sequence[str], value: Any) -> Any:
    """A copy of `holder` that has the value at the key: dicts and lists are shared between entries of a config.

    Raises:
        LookupError: the key leads past a list's end or into what is no dict and no list.
    """
    if not key:
        return ConfigDict({k: v for k, v in value.items() if k != "_delete_"}) if isinstance(value, dict) else value
    first, *inner = key
    if isinstance(holder, list | tuple):
        if not first.isdigit() or int(first) >= len(holder):
            raise LookupError(f"{first!r} is no index of a list of {len(holder)}")
        items = list(holder)
        items[int(first)] = _with_value(items[int(first)], inner, value)
        return type(holder)(items)
    if holder is not None and not isinstance(holder, dict):
        raise LookupError(f"{first!r} is looked for in {holder!r}, which has no keys")
    changed = ConfigDict() if holder is None else holder.copy()
    changed[first] = _with_value(changed.get(first), inner, value)
    return changed


def _set_data_root(config: Any, data_root: str) -> None:
    """Wrappers such as RepeatDataset and ConcatDataset hold further datasets."""
    if isinstance(config, list | tuple):
        for item in config:
            _set_data_root(item, data_root)
    elif isinstance(config, Mapping):
        if "data_root" in config:
            config["data_root"] = data_root  # type: ignore[index]
        for key in ("dataset", "datasets"):
            _set_data_root(config.get(key), data_root)


def find_config(name: str | Path) -> Path:
    """The file of the config called `name`: the path given, then the checkout's, then the installed package's.

    Raises:
        FileNotFoundError: no such config; the message has the nearest names.
    """
    given = Path(name).expanduser()
    # "configs/..." is how a checkout's users write it; an installed package has no folder of that name.
    below = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    roots = config_roots()
    for candidate in (given, *(root / below for root in roots)):
        for path in (candidate, candidate.with_name(candidate.name + ".py")):
            if path.is_file():
                return path
    known = sorted({name for root in roots for name in _names(root)})
    wanted = str(below.with_suffix("") if below.suffix == ".py" else below)
    close = get_close_matches(wanted, known, n=3, cutoff=0.4)
    close = close or [full for full in known if Path(full).name == Path(wanted).name]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
    raise FileNotFoundError(f"no config is called {str(name)!r}; {hint}")


def import_scope(config: Config) -> None:
    """Imports what the config's default scope stands for.

    mmseg's registry would import mmseg by itself, and mmseg prints lines of no use then; ours imports it silently.
    """
    if config.get("default_scope") == "mmseg":
        import visionattn.segmentation  # noqa: F401


def config_roots() -> list[Path]:
    """Folders with configs: the checkout's, if this is one, and the installed package's."""
    package = Path(visionattn.__file__).parent
    checkout = package.parent
    roots = [checkout / "configs"] if (checkout / "setup.cfg").is_file() else []
    return [root for root in (*roots, package / "configs") if root.is_dir()]


def _names(root: Path) -> Iterator[str]:
    for path in root.rglob("*.py"):
        inside = path.relative_to(root)
        if inside.name != "__init__.py" and not any(part.startswith("_base_") for part in inside.parts):
            yield inside.with_suffix("").as_posix()


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The options that `--cfg-options KEY=VALUE ...` means.

    Values are read as Python's literals, dicts too, or else as mmengine reads them: 1,2 and [a,b] are lists.

    Raises:
        ValueError: something is not KEY=VALUE, or a value's brackets do not match.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ValueError(f"--cfg-options expects KEY=VALUE, got {pair!r}")
        options[key] = _value(key, value)
    return options


def _value(key: str, text: str) -> Any:
    """mmengine knows no dicts and takes spaces out of strings, but reads what has no quotes."""
    brackets = {"{": dict, "[": list, "(": tuple, "'": str, '"': str}
    expected = brackets.get(text.lstrip()[:1])
    try:
        if expected is not None:
            value = literal_eval(text.strip())
            if isinstance(value, expected):
                return value
    except (ValueError, SyntaxError):  # [a,b], or no value at all
        pass
    try:
        if expected is None or "{" not in text:
            parser = ArgumentParser()
            parser.add_argument("--options", nargs="*", action=DictAction, default={})
            return parser.parse_args(["--options", f"{key}={text}"]).options[key]
    except (AssertionError, RecursionError):
        pass
    raise ValueError(
        f"--cfg-options {key}: {text!r} is no value; a dict is written {{'type': 'ReLU', 'inplace': True}}"
    )

"""Errors that come up while a config is built, told with the config's key, file and line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, Registry

from visionattn.engine.config_kinds import LOOPS, Key, dicts_below, kind_of
from visionattn.engine.config_origin import Origin, Place, find_origin, trace_config
from visionattn.engine.registered import keywords, root_registry, type_label, unknown_keyword, unknown_type

_BUILDING = (AssertionError, AttributeError, ImportError, IndexError, KeyError, TypeError, ValueError)
_NOT_REGISTERED = re.compile(r"(\S+) is not in the (?:\w+::)?([\w ]+) registry")
_NOT_IN_MMCV = re.compile(r"Cannot find (\S+) in registry under scope name")
_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")
_REQUIRED = re.compile(r"missing \d+ required (?:positional|keyword-only) arguments?: (.+)")
_PACKAGES = {"TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb", "MLflowVisBackend": "mlflow"}


class ConfigMistake(ValueError):
    """What a config says wrong, in one line that has the key and where it was set."""


@contextmanager
def named_in(config: Config, options: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Where what runs inside fails to build something that the config names, says so with key, file and line.

    Args:
        options: those put over the config file, as `load_config` got them.
    Raises:
        ConfigMistake: in place of the error, which is its cause.
    """
    try:
        yield
    except _BUILDING as error:
        answer = explain_error(error, config, options)
        if answer is None:
            raise
        raise ConfigMistake(answer) from error


def explain_error(error: Exception, config: Config, options: Mapping[str, Any] | None = None) -> str | None:
    """The error in one line with the place in the config; None where it is no matter of the config."""
    text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    entries = Entries(config, options)
    named = _NOT_REGISTERED.search(text) or _NOT_IN_MMCV.search(text)
    if named and isinstance(error, KeyError):
        registry = root_registry(named[2]) if named.re is _NOT_REGISTERED else MODELS
        if registry is not None:
            name = _mmcv_layer(error.__traceback__) if named[1] == "None" else named[1]
            return entries.unknown_type(name, registry)
    builds = list(_builds(error.__traceback__))
    for built in reversed(builds):
        key = entries.find(built.config)
        if key is None:
            continue
        if isinstance(error, ImportError):
            return _missing_package(entries, key, built, text)
        keyword = _KEYWORD.search(text)
        if keyword and keyword[1] in built.config:
            return f"{entries.label((*key, keyword[1]))}: {unknown_keyword(keyword[1], built.kind)}"
        required = _REQUIRED.search(text)
        if required and _is_keyword_of(required[1], built.kind):
            return f"{entries.label(key)}: {type_label(built.kind)} needs {required[1]}"
        if text and not isinstance(error, AttributeError | IndexError):
            return f"{entries.label_of_failure(key, text)}: {text}"
    keyword = _KEYWORD.search(text)
    for part in LOOPS if keyword else ():  # the Runner calls the loops that say no type, and ours, itself
        entry = config.get(part) or {}
        loop = kind_of(config, (part,), entry)
        if keyword and loop is not None and keyword[1] in entry and text.startswith(f"{loop.__name__}.__init__"):
            return f"{entries.label((part, keyword[1]))}: {unknown_keyword(keyword[1], loop)}"
    if isinstance(error, ImportError):
        for key, kind in entries.types():
            if kind in _PACKAGES and _PACKAGES[kind] in text:
                return f"{entries.label(key)}: {_install(kind)}"
    return None


class Entries:
    """The dicts of a config, with the lines that set them."""

    def __init__(self, config: Config, options: Mapping[str, Any] | None = None) -> None:
        self.scope: str = config.get("default_scope", "mmengine")
        self.file = Path(config.filename) if config.filename else None
        self._options = [tuple(option.split(".")) for option in options or {}]
        self._dicts = list(dicts_below(config._cfg_dict.to_dict(), ()))
        self._top = trace_config(self.file, options) if self.file else Origin(())

    def types(self) -> Iterator[tuple[Key, str]]:
        for key, entry in self._dicts:
            if isinstance(entry.get("type"), str):
                yield key, entry["type"]

    def find(self, built: Mapping[str, Any]) -> Key | None:
        """The key of the dict that something was built from: of the same type, and with the most of its entries."""
        best: Key | None = None
        most = -1
        for key, entry in self._dicts:
            if entry.get("type") == built.get("type"):
                same = sum(1 for name, value in entry.items() if name in built and _same(value, built[name]))
                if same > most:
                    best, most = key, same
        return best

    def that_names(self, text: str) -> Key | None:
        """The key of a type that stands in quotes in the text."""
        quoted = re.findall(r"'([\w.]+)'", text)
        return next(((*key, "type") for key, kind in self.types() if kind in quoted), None)

    def unknown_type(self, name: str, registry: Registry) -> str:
        sentence = self.sentence(name, registry)
        keys = [
            (*key, entry_name)
            for key, entry in self._dicts
            for entry_name, value in entry.items()
            if value == name and (entry_name.endswith("type") or entry_name == "constructor")
        ]
        return f"{self.label(keys[0])}: {sentence}" if keys else sentence

    def sentence(self, name: str, registry: Registry) -> str:
        return unknown_type(name, registry, self.scope, self.file.parent if self.file else None)

    def place(self, key: Key) -> Place | None:
        places = find_origin(self._top, key).places
        return places[-1] if places else None

    def label(self, key: Key) -> str:
        """The key with its file and line: "model.backbone.depth (bands.py:9)"."""
        place = self.place(key)
        return ".".join(key) + (f" ({place})" if place else "")

    def label_of_failure(self, key: Key, text: str) -> str:
        """The key of a failing dict as a label, with the options that set something in it: most often they did it.

        Those that the text names, or else the type that it names, or else all.
        """
        inside = [option for option in self._options if option[: len(key)] == key and len(option) > len(key)]
        named = [option for option in inside if option[-1] in re.findall(r"\w+", text)]
        kind = None if named else self.that_names(text)
        if kind is not None or not inside:
            return self.label(kind or key)
        return f"{' or '.join(self.label(option) for option in named or inside)}, in {self.label(key)}"


class _Build:
    """One call of mmengine's build_from_cfg, as its frame has it."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        self.config: Mapping[str, Any] = variables["cfg"]
        self.kind: Callable[..., Any] = variables.get("obj_cls") or type(None)


def _builds(trace: TracebackType | None) -> Iterator[_Build]:
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "build_from_cfg" and Path(code.co_filename).parts[-3:-1] == ("mmengine", "registry"):
            yield _Build(trace.tb_frame.f_locals)
        trace = trace.tb_next


def _mmcv_layer(trace: TracebackType | None) -> str:
    """The type that mmcv's builders of layers looked for: their message has the None that they found."""
    name = "None"
    while trace is not None:
        name = str(trace.tb_frame.f_locals.get("layer_type", name))
        trace = trace.tb_next
    return name


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and not hasattr(one, "shape") and bool(one == other)


def _is_keyword_of(listed: str, kind: Callable[..., Any]) -> bool:
    return set(re.findall(r"'(\w+)'", listed)) <= set(keywords(kind)[0])


def _missing_package(entries: Entries, key: Key, built: _Build, text: str) -> str:
    kind = str(built.config.get("type")).rpartition(".")[2]
    return f"{entries.label(key)}: {_install(kind) if kind in _PACKAGES else text}"


def _install(kind: str) -> str:
    package = _PACKAGES[kind]
    return f"{kind} needs the package {package}, which is not installed: pip install {package}"

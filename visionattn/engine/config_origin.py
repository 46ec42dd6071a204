"""Which line of which config file set a value, read from the files themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

Key = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A line of a file; or a command's option, where `file` is None."""

    file: Path | None
    line: int = 0

    def __str__(self) -> str:
        if self.file is None:
            return "--cfg-options"
        below = self.file.is_relative_to(Path.cwd())
        return f"{self.file.relative_to(Path.cwd()) if below else self.file}:{self.line}"


@dataclass
class Origin:
    """Where a value, and each value inside it, was set.

    Attributes:
        places: the lines that set it, the one that holds last.
        within: the origins of its entries, by name or by index as text.
        name: the variable that a value comes from, as `dataset=dict(pipeline=train_pipeline)` says.
        is_dict: what a config sets here is merged into what its bases set, entry by entry.
    """

    places: tuple[Place, ...]
    within: dict[str, Origin] = field(default_factory=dict)
    name: str = ""
    is_dict: bool = False


def trace_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Origin:
    """The origins of a config file's values, through its bases, with the options put over them.

    What the file computes (a loop, a function's result) has the line of its statement.
    """
    file = Path(path).resolve()
    top = Origin((Place(file, 1),), _of_file(file))
    for key in options or {}:
        _put(top, tuple(key.split(".")))
    return top


def find_origin(top: Origin, key: str | Sequence[str]) -> Origin:
    """The origin of the value at the key ("model.backbone.depth"), or else of what holds it.

    Args:
        top: of `trace_config`.
    """
    found = top
    for part in key.split(".") if isinstance(key, str) else key:
        if part not in found.within:
            break
        found = found.within[part]
    return found


def _put(top: Origin, key: Key) -> None:
    for part in key[:-1]:
        top = top.within.setdefault(part, Origin((Place(None),)))
    before = top.within.get(key[-1], Origin(()))
    top.within[key[-1]] = Origin((*before.places, Place(None)))


def _of_file(file: Path) -> dict[str, Origin]:
    """Origins by top-level name: the bases', with the file's own over them."""
    if file.suffix != ".py":
        return {}
    reader = _Reader(file)
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        reader.read(statement)
    own = {name: origin for name, origin in reader.names.items() if name not in reader.imported}
    return _merged(own, reader.bases)


class _Reader:
    """Follows a file's assignments; `names` are its variables, `bases` what its bases define."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.names: dict[str, Origin] = {}
        self.bases: dict[str, Origin] = {}
        self.imported: set[str] = set()

    def read(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                self._assign(target, statement.value)
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            self._assign(statement.target, statement.value)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            self._update(statement.value)
        elif isinstance(statement, ast.With):  # with read_base(): from .base import *
            for inner in statement.body:
                if isinstance(inner, ast.ImportFrom):
                    self._import(inner)
        else:
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    self.names[node.id] = Origin((Place(self.file, node.lineno),))

    def origin(self, value: ast.expr) -> Origin:
        """Of an expression's value."""
        here = (Place(self.file, value.lineno),)
        if isinstance(value, ast.Name) and value.id in self.names:
            variable = self.names[value.id]
            return Origin(here, variable.within, value.id, variable.is_dict)
        if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id == "_base_":
            base = self.bases.get(value.attr, Origin(()))
            return Origin(here, base.within, f"_base_.{value.attr}", base.is_dict)
        entry = _entry_name(value)
        if entry is not None and isinstance(value, ast.Attribute | ast.Subscript):
            owner = self.origin(value.value)
            inner = owner.within.get(entry, Origin(()))
            return Origin(here, inner.within, owner.name and f"{owner.name}.{entry}", inner.is_dict)
        return Origin(here, dict(self._entries(value)), is_dict=_makes_dict(value))

    def _entries(self, value: ast.expr) -> Iterator[tuple[str, Origin]]:
        if isinstance(value, ast.Call) and _makes_dict(value):
            for keyword in value.keywords:
                if keyword.arg is None:
                    yield from self.origin(keyword.value).within.items()
                else:
                    origin = self.origin(keyword.value)
                    yield keyword.arg, replace(origin, places=(Place(self.file, keyword.lineno),))
        elif isinstance(value, ast.Dict):
            for key, item in zip(value.keys, value.values, strict=True):
                if key is None:
                    yield from self.origin(item).within.items()
                elif isinstance(key, ast.Constant):
                    yield str(key.value), replace(self.origin(item), places=(Place(self.file, key.lineno),))
        elif isinstance(value, ast.List | ast.Tuple):
            index = 0
            for element in value.elts:
                if isinstance(element, ast.Starred):
                    for origin in self.origin(element.value).within.values():
                        yield str(index), origin
                        index += 1
                else:
                    yield str(index), self.origin(element)
                    index += 1

    def _assign(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            if target.id == "_base_":
                self._read_bases(value)
            else:
                self.names[target.id] = replace(self.origin(value), places=(Place(self.file, target.lineno),))
            return
        if isinstance(target, ast.Subscript | ast.Attribute):  # model["backbone"] = ..., model.backbone = ...
            owner, key = self._owner(target.value), _entry_name(target)
            if owner is not None and key is not None:
                before = owner.within.get(key, Origin(()))
                places = (*before.places, Place(self.file, target.lineno))
                owner.within[key] = replace(self.origin(value), places=places)
            return
        for node in ast.walk(target):  # first, second = ...
            if isinstance(node, ast.Name):
                self.names[node.id] = Origin((Place(self.file, node.lineno),))

    def _update(self, call: ast.Call) -> None:
        """model.update(dict(...)) and model.update(depth=50)."""
        if not (isinstance(call.func, ast.Attribute) and call.func.attr == "update"):
            return
        owner = self._owner(call.func.value)
        if owner is not None:
            for argument in call.args:
                owner.within.update(self.origin(argument).within)
            for keyword in call.keywords:
                if keyword.arg:
                    owner.within[keyword.arg] = self.origin(keyword.value)

    def _owner(self, target: ast.expr) -> Origin | None:
        if isinstance(target, ast.Name):
            return self.names.get(target.id)
        key = _entry_name(target)
        if key is None or not isinstance(target, ast.Attribute | ast.Subscript):
            return None
        outer = self._owner(target.value)
        return None if outer is None else outer.within.get(key)

    def _read_bases(self, value: ast.expr) -> None:
        listed = value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
        for element in listed:
            if isinstance(element, ast.Constant):
                base, _ = Config._get_cfg_path(element.value, str(self.file))
                self.bases.update(_of_file(Path(base).resolve()))

    def _import(self, statement: ast.ImportFrom) -> None:
        folder = self.file
        for _ in range(statement.level):
            folder = folder.parent
        found = _of_file(folder.joinpath(*(statement.module or "").split(".")).with_suffix(".py"))
        names = found if statement.names[0].name == "*" else [alias.name for alias in statement.names]
        for name in names:
            if name in found:
                self.names[name] = found[name]


def _merged(own: Mapping[str, Origin], base: Mapping[str, Origin]) -> dict[str, Origin]:
    """As mmengine merges a config over its bases: dicts entry by entry, everything else as a whole."""
    merged = dict(base)
    for key, origin in own.items():
        below = base.get(key)
        if below is None:
            merged[key] = origin
        elif origin.is_dict and below.is_dict and "_delete_" not in origin.within:
            within = _merged(origin.within, below.within)
            merged[key] = Origin((*below.places, *origin.places), within, origin.name, True)
        else:
            merged[key] = replace(origin, places=(*below.places, *origin.places))
    return merged


def _makes_dict(value: ast.expr) -> bool:
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict"
    return called or isinstance(value, ast.Dict)


def _entry_name(value: ast.expr) -> str | None:
    """The "backbone" of model.backbone and model["backbone"], the "0" of steps[0]."""
    if isinstance(value, ast.Attribute):
        return value.attr
    if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):
        return str(value.slice.value)
    return None

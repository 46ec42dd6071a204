"""What configs may name: the registered types, the nearest to a name that is none, and the keywords a type takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine import registry as roots
from mmengine.registry import DefaultScope, Registry

from visionattn.registry import ATTENTION, MODELS, SCOPE, LazyRegistry

_ROOTS = {found.name: found for found in vars(roots).values() if isinstance(found, Registry)}

# Types that mmengine registers only where their package is installed.
_OPTIONAL = {
    "Lion": "lion-pytorch",
    "SophiaG": "Sophia",
    "DAdaptAdam": "dadaptation",
    "DAdaptAdaGrad": "dadaptation",
    "DAdaptSGD": "dadaptation",
    "AdamW8bit": "bitsandbytes",
    "Adam8bit": "bitsandbytes",
    "PagedAdamW": "bitsandbytes",
    "PagedAdamW8bit": "bitsandbytes",
}
_GIVEN_BY_THE_RUN = ("runner", "dataloader", "evaluator", "params", "optimizer")
_MOST_FILES = 2000


def root_registry(name: str) -> Registry | None:
    """mmengine's root registry, or ours of attention, of this name ("model", "hook")."""
    return ATTENTION if name == ATTENTION.name else _ROOTS.get(name)


def is_registered_anywhere(name: str, scope: str) -> bool:
    """Whether any registry that has been imported has the name: in a config the key does not always tell which."""
    given, _, bare = name.rpartition(".")
    scopes = (given,) if given else (scope, "mmengine")
    parts = [part for root in (*_ROOTS.values(), ATTENTION) for part in (root, *root._children.values())]
    return any(bare in part._module_dict and part.scope in scopes for part in parts)


def find_type(name: str, registry: Registry, scope: str) -> Callable[..., Any] | None:
    """What a config whose default scope is `scope` builds by this name; None if nothing is registered so."""
    if registry is ATTENTION:
        # Behind a module of a backbone a config may name the block around the mechanism as well.
        plugin = name.removeprefix(f"{SCOPE}.") == "AttentionPlugin"
        return MODELS.get(f"{SCOPE}.AttentionPlugin") if plugin else registry.get(name)
    with DefaultScope.overwrite_default_scope(scope), registry.switch_scope_and_registry(None) as found:
        kind: Callable[..., Any] | None = found.get(name)
    return kind


def type_names(registry: Registry, scope: str) -> list[str]:
    """Every name of a root registry and its children, as a config of this scope writes it."""
    names = []
    for part in (registry, *(registry._children[child] for child in sorted(registry._children))):
        if isinstance(part, LazyRegistry):
            part.import_all()
        else:
            part.import_from_location()
        near = part is registry or part.scope == scope
        names += [name if near else f"{part.scope}.{name}" for name in part.module_dict]
    return names


def nearest(name: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names most like this one, whatever scope stands before them and however they are capitalised.

    Of those that are equally like it ours come first.
    """
    alike = [(_likeness(_bare(name), _bare(other)), other) for other in dict.fromkeys(names)]
    alike.sort(key=lambda pair: (-pair[0], not pair[1].startswith(f"{SCOPE}.")))
    return [other for likeness, other in alike[:count] if likeness >= 0.3]


def unknown_type(name: str, registry: Registry, scope: str, near: Path | None = None) -> str:
    """The sentence that answers a name which is not registered: the nearest, and what to import or install.

    Args:
        near: a folder where the user's own modules may lie, besides the current one.
    """
    known = type_names(registry, scope)
    close = nearest(name, known)
    where = registry.name if registry is ATTENTION else f"{scope}::{registry.name}"
    text = f"{name} is not in the {where} registry"
    if close:
        text += f"; nearest: {', '.join(close)}"
    elsewhere = [other for other in known if other.rpartition(".")[2] == name]
    return f"{text}; write {elsewhere[0]}" if elsewhere else f"{text}; {_import_hint(name, registry, near)}"


def keywords(kind: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The keywords that a class or function takes, and whether it takes any other as well.

    A class that hands **kwargs to the class above takes that one's too.
    """
    taken: dict[str, inspect.Parameter] = {}
    makers = _constructors(kind) if inspect.isclass(kind) else [kind]
    for maker in makers:
        try:
            parameters = list(inspect.signature(maker).parameters.values())
        except (TypeError, ValueError):  # written in C
            return taken, True
        if inspect.isclass(kind):
            parameters = parameters[1:]
        open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                taken.setdefault(parameter.name, parameter)
        if not open_ended:
            return taken, False
    return taken, True


def unknown_keyword(keyword: str, kind: Callable[..., Any]) -> str:
    """The sentence that answers a keyword which a type does not take."""
    taken = [name for name in keywords(kind)[0] if name not in _GIVEN_BY_THE_RUN]
    close = nearest(keyword, taken)
    listed = ", ".join(taken) or "no keyword at all"
    return f"{type_label(kind)} takes no {keyword!r}; nearest: {', '.join(close)}; it takes {listed}"


def type_label(kind: Callable[..., Any]) -> str:
    """A type with the package that it is of: "mmseg's ResNet"."""
    package = (getattr(kind, "__module__", None) or "").partition(".")[0]
    name = getattr(kind, "__name__", str(kind))
    return f"{package}'s {name}" if package else name


def _constructors(kind: type) -> Iterator[Callable[..., Any]]:
    for owner in kind.__mro__:
        if owner is not object and "__init__" in vars(owner):
            yield vars(owner)["__init__"]


def _likeness(one: str, other: str) -> float:
    part = 0.3 if one in other or other in one else 0.0  # "IterBased" means IterBasedTrainLoop
    return SequenceMatcher(None, one, other).ratio() + part


def _bare(name: str) -> str:
    return name.rpartition(".")[2].lower()


def _import_hint(name: str, registry: Registry, near: Path | None) -> str:
    scope, _, bare = name.rpartition(".")
    if bare in _OPTIONAL:
        return f"{bare} needs its package: pip install {_OPTIONAL[bare]}"
    if scope and "." not in scope and scope not in registry._children and scope != registry.scope:
        if find_spec(scope) is None:
            return f"the package {scope} is not installed"
        return f'nothing has imported {scope}: custom_imports=dict(imports=["{scope}"])'
    module = _module_that_defines(bare, near)
    if module is not None:
        return f'{module} defines it and is not imported: custom_imports=dict(imports=["{module}"])'
    return 'a type of your own needs custom_imports=dict(imports=["its.module"])'


def _module_that_defines(name: str, near: Path | None) -> str | None:
    """The module below the current folder, or in the folder `near`, that has a class or function of this name."""
    pattern = re.compile(rf"^(?:class|def) {re.escape(name)}\b", re.MULTILINE)
    for folder, below in ((Path.cwd(), "**/*.py"), (near, "*.py")):
        if folder is None:
            continue
        for _, file in zip(range(_MOST_FILES), folder.glob(below), strict=False):
            parts = file.relative_to(folder).with_suffix("").parts
            hidden = any(part.startswith(".") or part == "site-packages" for part in parts)
            if not hidden and pattern.search(_text(file)):
                return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""

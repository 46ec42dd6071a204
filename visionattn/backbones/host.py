"""What every change to a foreign model asks first: is it still plain, and which module does a path mean?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

_TOO_LATE = {
    "OptimizedModule": "torch.compile",
    "ScriptModule": "torch.jit.script",
    "DataParallel": "DataParallel",
    "DistributedDataParallel": "DistributedDataParallel",
    "FullyShardedDataParallel": "FullyShardedDataParallel",
}


def check_host(model: nn.Module, change: str, changed: str) -> None:
    """Raises ValueError unless the model would notice a change of its modules.

    Args:
        change: "insert attention", for the message.
        changed: "attention is inserted".
    """
    for module in model.modules():
        late = [_TOO_LATE[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in _TOO_LATE]
        if getattr(module, "_compiled_call_impl", None) is not None:
            late.append("compile()")
        if late:
            raise ValueError(f"{change} before {late[0]}; this {type(module).__name__} would not notice it")
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has lazy parameters; run it once before {changed}")


def modules_at(model: nn.Module, where: Mapping[str, Any], caller: str) -> dict[str, nn.Module]:
    """The module at each path.

    Args:
        where: path -> what happens there.
        caller: the function that was called, for messages.
    Raises:
        TypeError: not paths -> something, or nothing at all.
        KeyError: no module at a path.
        ValueError: two paths lead to one module.
    """
    if not isinstance(where, Mapping) or not where:
        raise TypeError(f'{caller} expects where -> what, as {{"layer3": "EfficientAttention"}}; got {where!r}')
    modules = dict(model.named_modules(remove_duplicate=False))
    targets: dict[str, nn.Module] = {}
    for path in where:
        if not isinstance(path, str):
            raise TypeError(f'{caller} expects the paths of modules, as "layer3"; got {path!r}')
        if path not in modules or path == "":
            raise KeyError(no_such_module(model, path))
        same = [other for other, target in targets.items() if target is modules[path]]
        if same:
            raise ValueError(f"{same[0]!r} and {path!r} are one module; name it once, with a list of configs")
        targets[path] = modules[path]
    return targets


def no_such_module(model: nn.Module, path: str) -> str:
    """The message for a path that leads nowhere: near names, and what there is where the path still led somewhere."""
    modules = dict(model.named_modules(remove_duplicate=False))
    above = path
    while above not in modules:
        above = above.rpartition(".")[0]
    children = [f"{above}.{name}" if above else name for name, _ in modules[above].named_children()]
    place = f"under {above!r}" if above else "at its top"
    return (
        f"{type(model).__name__} has no module {path!r}; {near(path, modules)}{place}: "
        f"{', '.join(children) or 'nothing'}"
    )


def near(path: str, paths: Iterable[str]) -> str:
    """Asks "did you mean ...?" with the three nearest paths, those that end in the path first; "" if none is near."""
    names = [name for name in paths if name]
    close = [name for name in names if name.endswith(f".{path}")] + get_close_matches(path, names, n=3)
    return f"did you mean {' or '.join(dict.fromkeys(close[:3]))}? " if close else ""


def called_nowhere(model: nn.Module, path: str, module: nn.Module) -> str:
    """The message for a module that the model's forward does not call."""
    children = ", ".join(f"{path}.{name}" for name, _ in module.named_children())
    holds = f"; it holds {children}" if children else ""
    return f"{path!r} ({type(module).__name__}) is never called by the forward of {type(model).__name__}{holds}"

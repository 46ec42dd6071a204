"""Hangs a module behind another one without wrapping it: the names of the host's parameters stay.

A host that runs its children one after another (nn.Sequential, timm's RegStage) gets it as its last child, so that
whoever runs the children past the host (gradient checkpointing, feature extractors) runs it too. Any other host gets it
as a child that a forward hook runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from visionattn.backbones.probe import outputs_of

Undo: TypeAlias = Callable[[], None]
Attach: TypeAlias = Callable[[nn.Module, nn.Module, str], Undo]
"""Takes host, child and the child's name; a number follows where the host has that name already."""


def find_attachment(model: nn.Module, hosts: Sequence[nn.Module], inputs: Sequence[Tensor]) -> dict[nn.Module, Attach]:
    """How to hang something behind each host, found by giving each a last child that hands its input on."""
    witnesses = {host: _Witness() for host in hosts}
    try:
        with ExitStack() as undo:
            for host, witness in witnesses.items():
                undo.callback(as_last_child(host, witness, "witness"))
            outputs = outputs_of(model, hosts, inputs)
    except Exception:  # a host that runs its children is surprised by one more; which of them it is, they show alone
        if len(hosts) == 1:
            return {hosts[0]: by_hook_in_last_child}
        return {host: how for one in hosts for host, how in find_attachment(model, [one], inputs).items()}
    return {host: _attachment(witness, outputs[host]) for host, witness in witnesses.items()}


def as_last_child(host: nn.Module, child: nn.Module, name: str) -> Undo:
    """For hosts that run their children one after another."""
    name = _free_name(host, name)
    host.add_module(name, child)
    return lambda: delattr(host, name)


def by_hook(host: nn.Module, child: nn.Module, name: str) -> Undo:
    """For hosts that call their children by name."""
    return _attach_by_hook(host, (), child, name)


def by_hook_in_last_child(host: nn.Module, child: nn.Module, name: str) -> Undo:
    """For hosts that run whatever children they have, but not just in turn (torchvision's dense blocks)."""
    home: tuple[str, ...] = ()
    inner = host
    while not home or isinstance(inner, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        children = list(inner.named_children())
        if not children:
            break
        inside, inner = children[-1]
        home = (*home, inside)
    return _attach_by_hook(host, home, child, name)


class RunAttached:
    """The forward hook: sends the output through the attached children, in the order they came.

    It knows them by name and looks them up on the module it is called for, which makes it right for copies,
    pickles and replicas of that module.
    """

    handle: RemovableHandle  # unpickled in a new process, it keeps torch from giving its number to another hook

    def __init__(self) -> None:
        self.paths: list[tuple[str, ...]] = []

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        for path in self.paths:
            child = module
            for name in path:
                child = getattr(child, name)
            output = child(output)
        return output


class _Witness(nn.Module):
    """Returns what it gets, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Any, int | None]] = []

    def forward(self, *args: Any, **options: Any) -> Any:
        x = args[0] if args else None
        self.seen.append((x, _version(x)))
        return x


def _attachment(witness: _Witness, outputs: Sequence[Any]) -> Attach:
    if not witness.seen:
        return by_hook
    last_of_all = len(witness.seen) == len(outputs) and all(
        x is output and version == _version(output) for (x, version), output in zip(witness.seen, outputs, strict=True)
    )
    return as_last_child if last_of_all else by_hook_in_last_child


def _version(x: Any) -> int | None:
    """Counts what was done to a tensor in place."""
    return x._version if isinstance(x, Tensor) and not x.is_inference() else None


def _attach_by_hook(host: nn.Module, home: tuple[str, ...], child: nn.Module, name: str) -> Undo:
    inside = host.get_submodule(".".join(home))
    name = _free_name(inside, name)
    inside.add_module(name, child)
    hook = next((hook for hook in host._forward_hooks.values() if isinstance(hook, RunAttached)), None)
    if hook is None:
        hook = RunAttached()
        # First of all hooks: one that collects features (timm's) sees what the later layers see.
        hook.handle = host.register_forward_hook(hook, prepend=True)
    hook.paths.append((*home, name))

    def undo() -> None:
        delattr(inside, name)
        hook.paths.remove((*home, name))
        if not hook.paths:
            hook.handle.remove()

    return undo


def _free_name(home: nn.Module, name: str) -> str:
    number, free = 1, name
    while hasattr(home, free):
        number += 1
        free = f"{name}_{number}"
    return free

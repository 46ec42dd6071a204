"""Says, while a model runs, in which of its rows it is, without changing what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn


class Tracker:
    """The rows that run at this moment, outermost first.

    Watched modules get forward hooks, and a `forward` of their own because mmseg calls that of its heads directly.
    Nothing below them is touched: a mechanism's exact shortcuts are taken only where nobody watches its layers.

    Args:
        entered, left: called with a row's name when it begins and ends.
    """

    def __init__(
        self, entered: Callable[[str], object] | None = None, left: Callable[[str], object] | None = None
    ) -> None:
        self._running: list[str] = []
        self._entered = entered
        self._left = left

    def innermost(self) -> str:
        """Name of the innermost row that runs; "" outside all of them."""
        return self._running[-1] if self._running else ""

    def is_busy(self) -> bool:
        """Whether any watched row runs."""
        return bool(self._running)

    @contextmanager
    def watching(self, modules: Iterable[tuple[str, nn.Module]]) -> Iterator[None]:
        """Watches the modules, each under its name, inside the context."""
        self._running.clear()
        with ExitStack() as undo:
            for name, module in modules:
                undo.callback(module.register_forward_pre_hook(self._beginner(name), prepend=True).remove)
                undo.callback(module.register_forward_hook(self._ender(name)).remove)
                undo.callback(self._replace_forward(name, module))
            yield

    def _beginner(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: self._enter(name)

    def _ender(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: self._leave(name)

    def _replace_forward(self, name: str, module: nn.Module) -> Callable[[], None]:
        own, forward = vars(module).get("forward"), module.forward

        def watched(*args: Any, **kwargs: Any) -> Any:
            if self.innermost() == name:
                return forward(*args, **kwargs)
            self._enter(name)
            try:
                return forward(*args, **kwargs)
            finally:
                self._leave(name)

        def restore() -> None:
            del module.forward
            if own is not None:
                module.forward = own

        module.forward = watched  # type: ignore[method-assign]
        return restore

    def _enter(self, name: str) -> None:
        self._running.append(name)
        if self._entered is not None:
            self._entered(name)

    def _leave(self, name: str) -> None:
        if self._left is not None:
            self._left(name)
        self._running.pop()

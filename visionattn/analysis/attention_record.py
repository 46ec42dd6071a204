"""The attention modules of a model, and what they were given in one forward pass, whatever the task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from visionattn.attention.base import ContextMixer, TokenMixer
from visionattn.blocks.cross_view import CrossViewBlock


@dataclass(frozen=True)
class Recorded:
    """One call of a mechanism.

    Attributes:
        name: its path in the model.
        x: [B, *grid, C]; `context` and `mask`, the keys', as given.
        rows: each entry of the batch is a row of a map: B is images times rows.
    """

    name: str
    mixer: TokenMixer
    x: Tensor
    context: Tensor | None
    mask: Tensor | None
    rows: bool


@contextmanager
def recording(model: nn.Module) -> Iterator[list[Recorded]]:
    """Within it, the first call of each of the model's mechanisms is noted, in the order they come."""
    calls: list[Recorded] = []
    seen: set[str] = set()
    by_rows = {
        f"{name}.attn" for name, module in model.named_modules() if isinstance(module, CrossViewBlock) and module.rows
    }

    def noting(name: str) -> Any:
        def note(mixer: TokenMixer, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
            if name not in seen:
                seen.add(name)
                calls.append(_recorded(name, mixer, arguments, options, name in by_rows))

        return note

    with ExitStack() as undo:
        for name, module in model.named_modules():
            if isinstance(module, TokenMixer):
                undo.callback(module.register_forward_pre_hook(noting(name), with_kwargs=True).remove)
        yield calls


@contextmanager
def first_picture(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, the first input [B, channels, H, W] of the model's first convolution is noted: all that it sees."""
    pictures: list[Tensor] = []

    def note(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not pictures and arguments and isinstance(arguments[0], Tensor) and arguments[0].dim() == 4:
            pictures.append(arguments[0].detach())

    with ExitStack() as undo:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                undo.callback(module.register_forward_pre_hook(note).remove)
        yield pictures


def _recorded(
    name: str, mixer: TokenMixer, arguments: tuple[Any, ...], options: dict[str, Any], rows: bool
) -> Recorded:
    names = ("x", "context", "mask", "context_mask") if isinstance(mixer, ContextMixer) else ("x", "mask")
    given = {**dict(zip(names, arguments, strict=False)), **options}
    context = given.get("context")
    mask = given.get("mask") if context is None else given.get("context_mask")
    detached = [None if tensor is None else tensor.detach() for tensor in (given["x"], context, mask)]
    return Recorded(name, mixer, detached[0], detached[1], detached[2], rows)  # type: ignore[arg-type]

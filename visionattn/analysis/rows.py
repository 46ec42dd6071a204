"""A model's modules as the rows of a table: the model, its stages, their blocks, and what stands beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from visionattn.attention.base import TokenMixer

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(frozen=True)
class Place:
    """A module that is a row.

    Attributes:
        name: its dotted path; "" is the model.
        module: itself.
        parent: name of the row that it is part of; None for the model.
        depth: rows above it.
        kind: "model"; "stage", which is shown with its parts; "block", which is not; "layer", which has none.
    """

    name: str
    module: nn.Module
    parent: str | None
    depth: int
    kind: str


def places_of(model: nn.Module) -> list[Place]:
    """The rows of a model, each after the one it is part of.

    A stage is what holds a list of blocks somewhere inside (`nn.Sequential` and its like, of two or more modules with
    layers of their own). A list that only collects the one run of stages or blocks of its owner is no row itself: they
    stand directly below the owner (`layers.0` of a Swin, `blocks.3` of a ViT, but `layer1` and `layer1.0` of a ResNet).
    """
    return list(_places(model, "", None, 0))


def _places(module: nn.Module, name: str, parent: str | None, depth: int) -> Iterator[Place]:
    stage = _is_stage(module)
    simple = "block" if any(True for _ in module.children()) else "layer"
    yield Place(name, module, parent, depth, "model" if parent is None else "stage" if stage else simple)
    if not stage:
        return
    for child_name, child in _shown_children(module):
        yield from _places(child, f"{name}.{child_name}" if name else child_name, name, depth + 1)


def _shown_children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    children = list(module.named_children())
    stages = [child for _, child in children if _is_stage(child)]
    for name, child in children:
        if isinstance(child, _LISTS) and stages == [child]:
            yield from ((f"{name}.{inner}", below) for inner, below in _shown_children(child))
        else:
            yield name, child


def _is_stage(module: nn.Module) -> bool:
    """Holds, at any depth outside a mechanism, a list of two blocks or more."""
    if isinstance(module, TokenMixer):
        return False
    if isinstance(module, _LISTS) and sum(_is_block(child) for child in module.children()) > 1:
        return True
    return any(_is_stage(child) for child in module.children())


def _is_block(module: nn.Module) -> bool:
    """More than a chain of layers: somewhere inside, a module of its own has two layers with weights, or a mixer."""
    for part in module.modules():
        if isinstance(part, TokenMixer):
            return True
        if not isinstance(part, _LISTS):
            weighted = (inner for inner in part.modules() if inner is not part and inner._parameters)
            if next(weighted, None) is not None and next(weighted, None) is not None:
                return True
    return False

"""What a dialect and a family of models say of themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from visionattn.typing import Grid
from visionattn.weights.dialects.names import NameTable

State = dict[str, Tensor]
"""Tensors by name."""


def unchanged(state: State) -> State:
    """The state itself."""
    return state


@dataclass(frozen=True)
class Family:
    """Models that have the same canonical names, up to their size.

    Attributes:
        name: for messages.
        names: fits every canonical name, and no other.
        size: what tells one size from another, by canonical names: ("embed_dim", 96), ("depths", (2, 2, 6, 2)) ...
    """

    name: str
    names: re.Pattern[str]
    size: Callable[[Mapping[str, Tensor]], dict[str, object]]


@dataclass(frozen=True)
class Dialect:
    """How one code base names and orders the weights of one family.

    Attributes:
        name: "timm", "microsoft", "torchvision" or "mmseg".
        family: whose weights.
        signs: names that all of its state dicts have, and together no other dialect's.
        table: its names and the canonical ones.
        values_to_canonical: its tensors under canonical names -> canonical tensors, where more than the name differs.
        values_from_canonical: the inverse.
        buffers: what its modules save although they compute it, under canonical names, from the blocks' windows
            ("layers.0.blocks.0" -> (7, 7)); None where there is nothing.
        wrapper: the key under which its loader looks for the state dict in a torch file; None: it takes a bare one.
    """

    name: str
    family: Family
    signs: frozenset[str]
    table: NameTable
    values_to_canonical: Callable[[State], State] = unchanged
    values_from_canonical: Callable[[State], State] = unchanged
    buffers: Callable[[Mapping[str, Grid]], State] | None = None
    wrapper: str | None = None


def described(family: Family, state: Mapping[str, Tensor]) -> str:
    """The family and the size of a model with these canonical weights, in words."""
    return f"{family.name} ({', '.join(f'{what}={value}' for what, value in family.size(state).items())})"

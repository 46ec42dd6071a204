"""What every mechanism is, from the registry: for the command's list and the table in the docs."""

from __future__ import annotations

from dataclasses import dataclass

from visionattn.attention.base import ContextMixer, SameGridMixer
from visionattn.attention.build import attention_class, list_attention


@dataclass(frozen=True)
class Listed:
    """One row.

    Attributes:
        cost: growth of its multiplications with the number of tokens.
        cross: at which other maps it may look: "yes" at any, "same grid", or "" at none.
        causal: it has a causal form.
        grids: numbers of dimensions that the map may have.
    """

    name: str
    cost: str
    cross: str
    causal: bool
    grids: tuple[int, ...]
    paper: str


def listed_mechanisms() -> list[Listed]:
    """All that are registered, by name."""
    rows = []
    for name in list_attention():
        mixer = attention_class(name)
        claims = mixer.claims
        cross = "same grid" if issubclass(mixer, SameGridMixer) else "yes" if issubclass(mixer, ContextMixer) else ""
        rows.append(Listed(name, claims.cost, cross, claims.causal, mixer.grid_dims, claims.paper))
    return rows

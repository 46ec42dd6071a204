"""What every mechanism is, from the registry: for the command's list and the table in the docs."""

from __future__ import annotations

from dataclasses import dataclass

from visionattn.attention.base import ContextMixer
from visionattn.attention.build import attention_class, list_attention


@dataclass(frozen=True)
class Listed:
    """One row.

    Attributes:
        cost: growth of its multiplications with the number of tokens.
        cross: it may look at another map.
        causal: it has a causal form.
        grids: numbers of dimensions that the map may have.
    """

    name: str
    cost: str
    cross: bool
    causal: bool
    grids: tuple[int, ...]
    paper: str


def listed_mechanisms() -> list[Listed]:
    """All that are registered, by name."""
    rows = []
    for name in list_attention():
        mixer = attention_class(name)
        claims = mixer.claims
        cross = issubclass(mixer, ContextMixer)
        rows.append(Listed(name, claims.cost, cross, claims.causal, mixer.grid_dims, claims.paper))
    return rows

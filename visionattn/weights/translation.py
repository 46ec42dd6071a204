"""Whose names a state dict has, and the same weights under the canonical names or another's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from visionattn.typing import Grid
from visionattn.weights.dialects import microsoft, mmseg, timm, torchvision
from visionattn.weights.dialects.dialect import Dialect, State
from visionattn.weights.dialects.swin import is_computed, windows_told
from visionattn.weights.reading import below

PREFIX = "backbone."
"""What segmentors and detectors put before the names of their backbone."""

# Those whose signs include another's stand before it.
_DIALECTS = (*microsoft.DIALECTS, *timm.DIALECTS, *torchvision.DIALECTS, *mmseg.DIALECTS)


class Spoken(NamedTuple):
    """A dialect, and what stands before each of its names: "" or "backbone."."""

    dialect: Dialect
    prefix: str


class Canonical(NamedTuple):
    """Weights under canonical names.

    Attributes:
        state: the tensors.
        spelled: the source's spelling of each canonical name that was one there.
        unknown: names of the source that are not its dialect's.
        computed: names of the source's buffers that follow from window and image size; not in the state.
        windows: of each block whose weights or buffers tell it, "layers.0.blocks.0" -> (7, 7).
        coordinates: V2's tables of relative coordinates, which also tell for which window it was trained first.
    """

    state: State
    spelled: dict[str, str]
    unknown: tuple[str, ...]
    computed: tuple[str, ...]
    windows: dict[str, Grid]
    coordinates: State


def dialect_names() -> list[str]:
    """The names of the dialects known."""
    return list(dict.fromkeys(dialect.name for dialect in _DIALECTS))


def detect(names: Iterable[str]) -> Spoken | None:
    """Whose names these are; None where nobody's known here."""
    names = frozenset(name for name in names if isinstance(name, str))
    for prefix in ("", PREFIX):
        found = frozenset(name[len(prefix) :] for name in names if name.startswith(prefix))
        for dialect in _DIALECTS:
            if dialect.signs <= found:
                return Spoken(dialect, prefix)
    return None


def speaking(name: str, family: str) -> Dialect | None:
    """The dialect of this name for a family; None where its code base has no such models."""
    return next((one for one in _DIALECTS if one.name == name and one.family.name == family), None)


def having(family: str) -> list[str]:
    """The names of the dialects that have a family."""
    return [dialect.name for dialect in _DIALECTS if dialect.family.name == family]


def to_canonical(state: Mapping[str, Any], spoken: Spoken) -> Canonical:
    """The weights behind the prefix under canonical names, and which names are outside or not the dialect's.

    Raises:
        ValueError: the names are the dialect's, the shapes are not.
    """
    dialect, prefix = spoken
    inside = below(prefix, state) if prefix else state
    computed = {name for name in inside if is_computed(name)}
    spelled: dict[str, str] = {}
    unknown = []
    for name, value in inside.items():
        canonical = dialect.table.to_canonical(name) if isinstance(value, Tensor) else None
        if canonical is None or canonical in spelled:
            unknown.append(name)
        else:
            spelled[canonical] = name
    found = {canonical: inside[name] for canonical, name in spelled.items()}
    try:
        windows = windows_told(found)
        values = dialect.values_to_canonical({name: found[name] for name in found if spelled[name] not in computed})
    except (IndexError, RuntimeError, TypeError) as error:
        whose = f"those of {dialect.name}'s {dialect.family.name}"
        raise ValueError(f"the names are {whose}, the shapes of the tensors are not: {error}") from error
    known = {name: value for name, value in values.items() if dialect.family.names.fullmatch(name)}
    unknown += [spelled.get(name, name) for name in values if name not in known]
    outside = [name for name in state if not name.startswith(prefix)]
    return Canonical(
        state=known,
        spelled={name: prefix + own for name, own in spelled.items()},
        unknown=tuple(outside + [prefix + name for name in unknown if name not in computed]),
        computed=tuple(prefix + name for name in inside if name in computed),
        windows=windows,
        coordinates={name: value for name, value in found.items() if name.endswith("relative_coords_table")},
    )


def from_canonical(state: State, dialect: Dialect) -> tuple[State, tuple[str, ...]]:
    """The weights under the dialect's names, and the canonical names for which it has none."""
    named = {name: dialect.table.from_canonical(name) for name in state}
    homeless = tuple(name for name, own in named.items() if own is None)
    values = dialect.values_from_canonical({name: value for name, value in state.items() if name not in homeless})
    return renamed(values, dialect), homeless


def renamed(state: State, dialect: Dialect) -> State:
    """Tensors under canonical names that the dialect has, under its own."""
    names = {name: dialect.table.from_canonical(name) for name in state}
    return {own: state[name] for name, own in names.items() if own is not None}

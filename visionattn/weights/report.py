"""How a file's tensors met a model's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class LoadReport:
    """How a file's tensors met a model's.

    Attributes:
        matched: names that were loaded.
        missing: names of the model that the file lacks.
        unexpected: names of the file that the model lacks.
        mismatched: names in both whose shapes differ, with "[file's shape], expected [model's shape]".
        allowed: those of the three kinds that were allowed to be left over, and are not listed there.
        resized: of the matched ones, those that were interpolated, with "[file's shape] to [model's shape]".
        dialect: whose names the file has, where they were translated to the model's.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: dict[str, str]
    allowed: tuple[str, ...] = ()
    resized: dict[str, str] = field(default_factory=dict)
    dialect: str | None = None

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} tensors match"]
        if self.dialect is not None:
            parts[0] += f" by {self.dialect}'s names"
        if self.resized:
            parts.append(f"{len(self.resized)} of them resized (first: {_first(self.resized)})")
        if self.missing:
            parts.append(f"{len(self.missing)} missing (first: {self.missing[0]})")
        if self.unexpected:
            parts.append(f"{len(self.unexpected)} unexpected (first: {self.unexpected[0]})")
        if self.mismatched:
            parts.append(f"{len(self.mismatched)} of another shape (first: {_first(self.mismatched)})")
        if self.allowed:
            parts.append(f"{len(self.allowed)} left over as allowed (first: {self.allowed[0]})")
        return ", ".join(parts)


def compare(own: Mapping[str, Any], state: Mapping[str, Any], allow: Sequence[str] = ()) -> LoadReport:
    """How the names and shapes of `state` meet those of a model's state dict `own`.

    Args:
        allow: patterns such as "head.*" of names that may be left over on either side.
    """
    mismatched = {
        name: f"{list(value.shape)}, expected {list(own[name].shape)}"
        for name, value in state.items()
        if isinstance(value, Tensor) and isinstance(own.get(name), Tensor) and value.shape != own[name].shape
    }
    # Batch norms that were saved before they counted their batches: torch starts the count at zero.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    allowed = tuple(name for name in (*missing, *unexpected, *mismatched) if is_allowed(name, allow))
    return LoadReport(
        matched=tuple(name for name in state if name in own and name not in mismatched),
        missing=tuple(name for name in missing if name not in allowed),
        unexpected=tuple(name for name in unexpected if name not in allowed),
        mismatched={name: shapes for name, shapes in mismatched.items() if name not in allowed},
        allowed=allowed,
    )


def is_allowed(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns, such as "head.*", fits the name.

    Raises:
        TypeError: one string instead of a sequence of them.
    """
    if isinstance(patterns, str):
        raise TypeError(f"allow={patterns!r} must be a sequence of patterns: ({patterns!r},)")
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def patterns_for(names: Collection[str], kept: Iterable[str]) -> list[str]:
    """Patterns that fit the names and none of those kept, one per top module; empty where that cannot be."""
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    if set(tops) & {name.partition(".")[0] for name in kept}:
        return []
    return [top if top in names else f"{top}.*" for top in tops]


def _first(shapes: Mapping[str, str]) -> str:
    name, shape = next(iter(shapes.items()))
    return f"{name} {shape}"

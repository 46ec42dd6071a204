"""Weights of Swin and ViT from one code base's names to another's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from visionattn.typing import Grid
from visionattn.weights.dialects.dialect import Dialect, State, described
from visionattn.weights.dialects.swin import blocks_of
from visionattn.weights.reading import below, find_state_dict
from visionattn.weights.report import is_allowed, patterns_for
from visionattn.weights.translation import (
    Canonical,
    detect,
    dialect_names,
    from_canonical,
    having,
    renamed,
    speaking,
    to_canonical,
)


@dataclass(frozen=True)
class Conversion:
    """A state dict in the names of `target`, and what became of the rest.

    Attributes:
        source, target: the dialects.
        model: the family and its size, in words.
        state: what was converted, and what was added.
        computed: buffers of the source that were not taken, since they follow from window and image size.
        added: such buffers, as the target keeps them.
        left_out: names of the source without a place in the target that were allowed to be left out.
    """

    source: Dialect
    target: Dialect
    model: str
    state: State
    computed: tuple[str, ...]
    added: tuple[str, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.source.name} -> {self.target.name}: {self.model}",
            f"  {len(self.state) - len(self.added)} tensors converted",
        ]
        for names, what in (
            (self.computed, "not taken, they follow from window and image size"),
            (self.added, "computed for the target"),
            (self.left_out, "left out as allowed"),
        ):
            if names:
                lines.append(f"  {len(names)} {what}: {names[0]}{', ...' if len(names) > 1 else ''}")
        return "\n".join(lines)


def convert_weights(
    state: Mapping[str, Any],
    to: str,
    *,
    prefix: str = "",
    window: Sequence[int] | None = None,
    allow: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The weights of a Swin or ViT under another code base's names and in its order.

        convert_weights(torch.load("swin_tiny_patch4_window7_224.pth"), "mmseg", allow=("norm.*", "head.*"))

    Whose names the state has is detected. Of a whole segmentor's, the backbone is converted. Tensors that need no
    change are not copied.

    Args:
        state: tensors by name, or a checkpoint with them under state_dict, model or another usual key.
        to: "timm", "microsoft", "torchvision" or "mmseg".
        prefix: takes only the names that begin so, and cuts it off; "backbone." needs no mention.
        window: height and width, for targets that keep tables of it; needed where the weights do not tell it, as
            those of a Swin V2 from timm.
        allow: patterns of names, such as "head.*", that are left out where the target has no place for them.
    Raises:
        ValueError: nobody's names; an unknown target, or one that has no such models or no place for a name that is
            not allowed to be left out; the window is not known.
    """
    return convert(state, to, prefix=prefix, window=window, allow=allow).state


def convert(
    checkpoint: Mapping[str, Any],
    to: str,
    *,
    prefix: str = "",
    window: Sequence[int] | None = None,
    allow: Sequence[str] = (),
) -> Conversion:
    """What `convert_weights` returns, with an account of it."""
    check_target(to)
    state = find_state_dict(checkpoint)
    if prefix:
        state = below(prefix, state)
    spoken = detect(state)
    if spoken is None:
        first = ", ".join([str(name) for name, value in state.items() if isinstance(value, Tensor)][:3])
        raise ValueError(
            f"these are names of no code base known here: {first}, ...; known are those of {_listed(having('Swin'))} "
            f"for Swin, of {_listed(having('ViT'))} for ViT; if something stands before one of these, say so by prefix "
            "(--prefix)"
        )
    family = spoken.dialect.family
    target = speaking(to, family.name)
    if target is None:
        raise ValueError(
            f"{to} has no {family.name}, which these weights are; they can go to {_listed(having(family.name))}"
        )
    canonical = to_canonical(state, spoken)
    converted, homeless = from_canonical(canonical.state, target)
    left_out = (*canonical.unknown, *(canonical.spelled.get(name, name) for name in homeless))
    _check_left_out([name for name in left_out if not is_allowed(name, allow)], state, left_out, to)
    buffers = {} if target.buffers is None else target.buffers(_windows(canonical, window, to))
    buffers |= {name: value for name, value in canonical.coordinates.items() if name in buffers}
    added = renamed(buffers, target)
    return Conversion(
        source=spoken.dialect,
        target=target,
        model=described(family, canonical.state),
        state={**converted, **added},
        computed=canonical.computed,
        added=tuple(added),
        left_out=left_out,
    )


def check_target(to: str) -> None:
    """Raises ValueError unless there is a dialect of this name."""
    if to not in dialect_names():
        raise ValueError(f"no dialect is called {to!r}; there are {_listed(dialect_names())}")


def _check_left_out(refused: Sequence[str], state: Mapping[str, Any], left_out: Sequence[str], to: str) -> None:
    """Raises ValueError if a name is neither converted nor allowed to be left out."""
    if not refused:
        return
    patterns = patterns_for(refused, [name for name in state if name not in left_out])
    advice = f"; allow={tuple(patterns)} (--allow {' '.join(map(repr, patterns))}) leaves them out" if patterns else ""
    names = ", ".join(refused[:3]) + (", ..." if len(refused) > 3 else "")
    raise ValueError(f"{len(refused)} of {len(state)} tensors have no place in {to}: {names}{advice}")


def _windows(canonical: Canonical, window: Sequence[int] | None, to: str) -> dict[str, Grid]:
    """The window of each block.

    Raises:
        ValueError: the weights do not tell one and none was given, or the one given is not theirs.
    """
    if window is not None and (len(window) != 2 or any(not isinstance(n, int) or n < 1 for n in window)):
        raise ValueError(f"window={window!r} must hold height and width, such as (8, 8)")
    windows: dict[str, Grid] = {}
    for block in blocks_of(canonical.state):
        told = canonical.windows.get(block)
        found = told if window is None else tuple(window)
        if found is None:
            raise ValueError(
                f"{to} keeps tables of the window, and these weights do not tell the window of {block}: "
                "give height and width, such as window=(8, 8) (--window 8 8)"
            )
        table = canonical.state.get(f"{block}.attn.relative_position_bias_table")
        if found != (told or found) or (table is not None and len(table) != math.prod(2 * n - 1 for n in found)):
            raise ValueError(f"window={found} is not that of {block}: it has {_extent(told, table)}")
        windows[block] = found
    return windows


def _extent(told: Grid | None, table: Tensor | None) -> str:
    return f"{told}" if told is not None or table is None else f"a bias table of {len(table)} rows"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else names[0]

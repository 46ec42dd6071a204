"""The windows of a map in groups that stay in a core's cache, with what little index arithmetic each of them needs.

Most windows of a large map are alike: every position is a token, and every token may see every other. They need no
padding and no mask, and one bias serves them all. Only those at the far edges (and, after a shift, the seams) differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visionattn.ops.window import WindowLayout, hidden_pairs

_POSITIONS = 1568
"""32 windows of 7 x 7, per thread: measured for 96 to 768 channels on a core with 2 MB of its own cache."""


def positions_at_once() -> int:
    """How many positions of windows a group has, about, at most."""
    return _POSITIONS * torch.get_num_threads()


@dataclass(frozen=True)
class WindowGroup:
    """Some windows of a layout; w of them, with n tokens.

    Attributes:
        windows: w.
        positions: T.
        tokens: [n], the tokens of the windows in the order of their positions.
        places: [w * T], where each position's token stands in `tokens`; anywhere where there is padding.
        real: [n], the positions that hold tokens.
        padding: the positions that hold none. All three are None if all hold tokens.
        hidden: [w, 1 or T, T], True where a query must not see a key; None if all see all.
    """

    windows: int
    positions: int
    tokens: Tensor
    places: Tensor | None
    real: Tensor | None
    padding: Tensor | None
    hidden: Tensor | None


def window_groups(layout: WindowLayout, *, mask_padding: bool, positions: int) -> list[WindowGroup]:
    """The windows of a layout, each in one group, those that are alike in the first.

    Args:
        mask_padding: False lets padding be seen.
        positions: a group has as many windows as fit in so many positions, and one at least.
    """
    count, area = layout.tokens.shape
    real = layout.tokens < math.prod(layout.grid)
    hidden = hidden_pairs(layout, mask_padding=mask_padding)
    alike = real.all(dim=1)
    if hidden is not None:
        alike &= ~hidden[0].flatten(1).any(dim=1)
    size = max(1, positions // area)
    if count <= size:
        return [_group(layout, real, hidden, torch.arange(count, device=real.device))]
    kinds = (kind.nonzero().flatten() for kind in (alike, ~alike))
    return [
        _group(layout, real, hidden, windows)
        for kind in kinds
        if len(kind)
        for windows in kind.tensor_split(-(-len(kind) // size))
    ]


def walk(images: int, groups: Sequence[WindowGroup]) -> Iterator[tuple[slice, int]]:
    """The number of each group in each image: image after image, or several at once where they fit in one group."""
    step = 1
    if len(groups) == 1 and images > 1:
        step = max(1, positions_at_once() // (groups[0].windows * groups[0].positions))
    for start in range(0, images, step):
        for number in range(len(groups)):
            yield slice(start, start + step), number


def _group(layout: WindowLayout, real: Tensor, hidden: Tensor | None, windows: Tensor) -> WindowGroup:
    real = real[windows].flatten()
    tokens = layout.tokens[windows].flatten()[real]
    places = held = padding = None
    if len(tokens) < len(real):
        places = (real.cumsum(0) - 1).clamp_(min=0)
        held, padding = real.nonzero().flatten(), (~real).nonzero().flatten()
    if hidden is not None:
        hidden = hidden[0, windows]
        if not hidden.any():
            hidden = None
    return WindowGroup(len(windows), layout.tokens.shape[1], tokens, places, held, padding, hidden)

"""What a network is shown, as pictures for people: each task says how its samples look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class SampleView:
    """A sample as pictures.

    Attributes:
        tiles: (title, RGB picture) side by side.
        note: a line about it.
        counts: how often each class occurs in it, by name; empty where the task has no classes.
        ignored: how much of it is of no class.
        unit: what is counted, or what the values are.
        written: names stand in the tiles, which are to be shown large enough for them.
        values: [N], what a task without classes measures at places of it; None where there is no such thing.
    """

    tiles: tuple[tuple[str, Pixels], ...]
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    ignored: int = 0
    unit: str = "pixels"
    written: bool = False
    values: NDArray[np.floating] | None = None


@singledispatch
def sample_view(data_sample: Any, image: Any, metainfo: Mapping[str, Any]) -> SampleView:
    """How a sample looks after its augmentation; a task registers this for its data sample.

    Args:
        data_sample: of a data set's pipeline.
        image: [H, W, 3], RGB: the network's input; a dict of such by name where it takes several.
        metainfo: of the data set: classes, palette.
    Raises:
        TypeError: no task has said how such a sample looks.
    """
    raise TypeError(
        f"{type(data_sample).__name__} has no view; register one with visionattn.visualization.sample_view.sample_view"
    )

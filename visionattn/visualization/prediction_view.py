"""A model's prediction as a picture for people: each task says how its predictions look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class PredictionView:
    """A prediction beside what it was made of and, where it is known, the truth.

    Attributes:
        name: of a file, without suffix.
        picture: RGB.
    """

    name: str
    picture: Pixels


@singledispatch
def prediction_view(sample: Any, inputs: Any, metainfo: Mapping[str, Any]) -> PredictionView:
    """How a predicted sample looks; a task registers this for its data sample.

    Args:
        sample: as a model's `predict` gives it.
        inputs: what the loader gave the model of this sample, before the preprocessor.
        metainfo: of the data set: classes, palette.
    Raises:
        TypeError: no task has said how such a sample looks.
    """
    raise TypeError(
        f"{type(sample).__name__} has no picture; register one with "
        "visionattn.visualization.prediction_view.prediction_view"
    )

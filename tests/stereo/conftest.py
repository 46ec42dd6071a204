"""What the stereo tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_collections() -> Iterator[None]:
    """mmengine collects garbage at every data set that it opens: not among all that torch consists of."""
    gc.freeze()
    yield
    gc.unfreeze()

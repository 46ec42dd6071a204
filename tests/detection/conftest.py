from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _quick_collections():
    """mmengine collects garbage once a data set, among all that torch has loaded."""
    gc.freeze()
    yield
    gc.unfreeze()

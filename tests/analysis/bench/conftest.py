"""Mechanisms for one test: in the registry while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from visionattn.attention.base import TokenMixer
from visionattn.attention.build import list_attention
from visionattn.registry import ATTENTION


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[type[TokenMixer]], str]]:
    """Puts a class into the registry and returns its name there."""
    list_attention()
    monkeypatch.setattr(ATTENTION, "_module_dict", dict(ATTENTION.module_dict))

    def put(mixer: type[TokenMixer]) -> str:
        ATTENTION.module_dict[mixer.__name__] = mixer
        return mixer.__name__

    yield put

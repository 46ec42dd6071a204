"""Efficiency length, of mechanisms whose costs the test decides."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from visionattn.analysis.bench.candidate import Sizes
from visionattn.analysis.bench.forecast import Limits
from visionattn.analysis.bench.length import Search, efficiency_lengths, in_words
from visionattn.attention.base import TokenMixer
from visionattn.attention.softmax import SoftmaxAttention

SIZES = Sizes(dim=8, heads=2)


@pytest.fixture
def names(
    laboratory: Any, register: Callable[[type[TokenMixer]], str], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The opponent takes 1e-4 ms and 1e-4 MB a pair of tokens; the others as their names say."""
    pairs = {"SoftmaxAttention": lambda n: 1e-4 * n * n}
    laboratory.ms |= pairs | {
        "From300": lambda n: 300e-4 * n,
        "Dear": lambda n: 5e-4 * n * n,
        "Cheap": lambda n: 0.5e-4 * n * n,
    }
    laboratory.megabytes |= pairs | {"From300": lambda n: 110e-4 * n, "Dear": lambda n: 1e-6, "Cheap": lambda n: 50.0}
    forward = SoftmaxAttention.forward

    def timed(self: SoftmaxAttention, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if x.dim() == 4:
            laboratory.ran("SoftmaxAttention", x)
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(SoftmaxAttention, "forward", timed)
    return {name: register(laboratory.mixer(name, "N")) for name in ("From300", "Dear", "Cheap")}


def test_known_crossings_are_found(laboratory: Any, names: dict[str, str]) -> None:
    said: list[str] = []
    search = Search(["SoftmaxAttention", *names], largest=32, sizes=SIZES, searches=2, rounds=3)
    report = efficiency_lengths(search, instruments=laboratory.instruments, say=said.append)
    assert json.loads(json.dumps(report))["settings"]["opponent"] == "SoftmaxAttention"
    assert sorted(report["mechanisms"]) == ["Cheap", "Dear", "From300"]  # not the opponent against itself
    for way in ("forward", "training"):
        found = {name: about[way] for name, about in report["mechanisms"].items()}
        time = found["From300"]["time"]
        assert time["verdict"] == "from"
        assert time["low"] == 17**2 < 300 < time["high"] == 18**2
        assert len(time["searches"]) == 2
        memory = found["From300"]["memory"]
        assert memory["low"] == 10**2 < 110 < memory["high"] == 11**2
        assert len(memory["searches"]) == 1
        assert found["Dear"]["time"]["verdict"] == "never"
        assert found["Dear"]["memory"]["verdict"] == "always"
        assert found["Cheap"]["time"]["verdict"] == "always"
        assert found["Cheap"]["memory"]["low"] <= 707 <= found["Cheap"]["memory"]["high"]
    assert said[0] == "From300, forward: time 289 to 324, memory 100 to 121"


def test_the_climb_ends_where_a_limit_is(laboratory: Any, names: dict[str, str]) -> None:
    """Dear takes 33 ms on 256 tokens, at least four times that on 1024; the opponent 7 ms, foreseen 15 times."""
    search = Search(list(names), largest=32, sizes=SIZES, searches=1, rounds=3, limits=Limits(run_s=0.11))
    report = efficiency_lengths(search, instruments=laboratory.instruments)
    found = {name: about["forward"]["time"] for name, about in report["mechanisms"].items()}
    assert (found["Dear"]["verdict"], found["Dear"]["most"]) == ("never", 256)
    assert (found["From300"]["verdict"], found["From300"]["most"]) == ("from", 1024)


def test_in_words() -> None:
    def said(verdict: str, low: int | None, high: int | None) -> str:
        return in_words({"verdict": verdict, "low": low, "high": high, "fewest": 16, "most": 4096})

    assert said("from", 1024, 1156) == "1,024 to 1,156"
    assert said("from", None, 25) == "16 to 25"
    assert said("always", None, 16) == "16 or fewer"
    assert said("never", 4096, None) == "never up to 4,096"
    assert said("unsettled", 2500, None) == "2,500 to beyond 4,096"


def test_maps_that_make_no_ladder_are_refused() -> None:
    with pytest.raises(ValueError, match="the smallest side, 8, must be 1 or more and below the largest, 8"):
        efficiency_lengths(Search(["LinearAttention"], smallest=8, largest=8))

"""What a case is said to take, before it runs."""

from __future__ import annotations

import pytest

from visionattn.analysis.bench.forecast import Forecast, Foreseen, Limits, probe_of, why_left_out

LIMITS = Limits(run_s=2.0, run_bytes=1_000_000)


def test_time_and_memory_grow_with_the_larger_of_tokens_and_multiplications() -> None:
    forecast = Forecast()
    assert forecast.of("a", 100, 1000, "N") is None
    forecast.saw("a", 100, 1000, Foreseen(3.0, 500))
    assert forecast.of("a", 400, 16_000, "N") == Foreseen(48.0, 8000)
    assert forecast.of("a", 400, 2000, "N") == Foreseen(12.0, 2000)
    assert forecast.of("b", 400, 16_000, "N") is None


@pytest.mark.parametrize(("growth", "factor"), [("N", 4), ("N^1.5", 8), ("N^2", 16), ("something new", 16)])
def test_without_a_count_the_claim_tells(growth: str, factor: int) -> None:
    forecast = Forecast()
    forecast.saw("a", 100, None, Foreseen(3.0, 500))
    foreseen = forecast.of("a", 400, None, growth)
    assert foreseen is not None
    assert foreseen.ms == pytest.approx(3.0 * factor)


def test_the_largest_map_so_far_counts() -> None:
    forecast = Forecast()
    forecast.saw("a", 100, 100, Foreseen(1.0, 100))
    forecast.saw("a", 50, 50, Foreseen(99.0, 99))
    forecast.saw("a", 100, 100, Foreseen(2.0, 200))
    assert forecast.of("a", 200, 200, "N") == Foreseen(4.0, 400)


def test_limits_and_their_reasons() -> None:
    def why(foreseen: Foreseen | None, weights: int = 0, *, training: bool = False) -> str | None:
        return why_left_out(foreseen, weights, LIMITS, training=training)

    assert why(None) is None
    assert why(Foreseen(1999.0, 900_000), 100_000) is None
    assert why(Foreseen(2100.0, 0)) == "predicted 2.1 s a run, over the limit of 2 s"
    assert why(Foreseen(1.0, 900_001), 100_000) == "predicted 0.0 GB, over the limit of 0.001 GB"
    # gradients of the weights are as large as the weights, and in the peak of a map that was measured
    assert why(None, 600_000) is None
    assert why(None, 600_000, training=True) is not None
    assert why(Foreseen(1.0, 0), 600_000, training=True) is None


def test_a_first_map_that_is_large_is_probed() -> None:
    assert probe_of((32, 32)) is None
    assert probe_of((64, 64)) == (32, 32)
    assert probe_of((128, 256)) == (16, 32)
    assert probe_of((5000,)) == (625,)

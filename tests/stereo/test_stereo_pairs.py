"""benchmarks/stereo_pairs.py: its pairs, its filling of holes, and the figure of semi-global matching."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


def _benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "stereo_pairs.py"
    spec = importlib.util.spec_from_file_location("stereo_pairs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


BENCHMARK = _benchmark()
with_pairs = pytest.mark.skipif(not BENCHMARK.DATA.is_dir(), reason=f"no stereo pairs in {BENCHMARK.DATA}")


def test_holes_are_filled_from_the_left() -> None:
    random = np.random.default_rng(0)
    disparity = random.uniform(0, 9, (40, 11)).astype(np.float32)
    disparity[random.random((40, 11)) < 0.6] = -1
    disparity[0] = -1
    expected = []
    for row in disparity.tolist():
        last = next((value for value in row if value >= 0), 0.0)
        expected.append([last := value if value >= 0 else last for value in row])
    np.testing.assert_array_equal(BENCHMARK.filled_from_the_left(disparity), np.array(expected, np.float32))


@with_pairs
@pytest.mark.parametrize("title", list(BENCHMARK.PAIRS))
def test_a_perfect_disparity_is_perfect_and_another_is_not(title: str) -> None:
    truth = BENCHMARK.PAIRS[title].truth()
    assert set(BENCHMARK.figures(truth.disparity, truth).values()) == {0.0}
    off = BENCHMARK.figures(truth.disparity + 2, truth)
    assert math.isclose(off["EPE"], 2, rel_tol=1e-5)
    assert off["bad-1"] == 100
    assert off["D1"] == 0
    assert truth.disparity.shape == BENCHMARK.PAIRS[title].images()[0].shape[:2]


@pytest.mark.slow
@with_pairs
def test_the_figure_of_semi_global_matching() -> None:
    results = BENCHMARK.measure({"SGBM": BENCHMARK.semi_global_matching}, None)["SGBM"]
    assert results["mean"]["EPE"] == pytest.approx(3.73, abs=0.02)  # OpenCV 5.0

"""The page about the bench says what its JSON says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "attention_bench_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, way: str, ms: float | None, side: int = 8) -> dict[str, Any]:
    return {
        "mechanism": name,
        "grid": [side, side],
        "pass": way,
        "ms": ms,
        "peak_bytes": None if ms is None else round(1e5 * ms),
        "forward_macs": 2_500_000,
    }


def test_findings_are_counted(page: ModuleType) -> None:
    times = {"A": 3.0, "B": 1.5, "C": 40.0, "SoftmaxAttention": 12.0, "D": None}
    said = list(page.findings([row(name, "training", ms) for name, ms in times.items()], [[8, 8]]))
    assert said[0] == (
        "- 8x8, forward and backward: shortest `B` (1.5 ms), `A` (3 ms), `SoftmaxAttention` (12 ms); of 3 others 2 "
        "take less time than `SoftmaxAttention` (12 ms) and 2 hold less (1.2 MB)."
    )
    times["SoftmaxAttention"] = None
    said = list(page.findings([row(name, "training", ms) for name, ms in times.items()], [[8, 8]]))
    assert said[0].endswith("`SoftmaxAttention` was left out.")


def test_the_fastest_comes_first_and_what_was_left_out_last(page: ModuleType) -> None:
    times = {"A": 3.0, "B": 1234.5, "C": None}
    rows = [row(name, way, ms) for name, ms in times.items() for way in ("forward", "training")]
    lines = list(page.table(rows, [[8, 8]]))
    assert lines[2:5] == [
        "| `A` | 3 / 3 | 0.3 | 2.5 |",
        "| `B` | 1,234 / 1,234 | 123 | 2.5 |",
        "| `C` | – / – | – | 2.5 |",
    ]


def test_the_page_is_that_of_the_json(page: ModuleType) -> None:
    text = page.PAGE.read_text()
    if page.BENCH.is_file():
        report = json.loads(page.BENCH.read_text())
        for line in page.table([r for r in report["rows"] if r["pattern"] == "self"], report["settings"]["grids"]):
            assert line in text, "run  python tools/attention_bench_page.py"
    if page.LENGTH.is_file():
        for line in page.length_page(json.loads(page.LENGTH.read_text())):
            assert line in text, "run  python tools/attention_bench_page.py"
    for picture in (DOCS / "attention_bench").glob("*.png"):
        assert f"(attention_bench/{picture.name})" in text

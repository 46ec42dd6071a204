"""The bench, over mechanisms whose time and memory the test decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from visionattn.analysis.bench.candidate import Sizes
from visionattn.analysis.bench.forecast import Limits
from visionattn.analysis.bench.run import Plan, bench
from visionattn.attention.base import Claims, TokenMixer

SIZES = Sizes(dim=8, heads=2)
GRIDS = ((8, 8), (16, 16), (32, 32))
Register = Callable[[type[TokenMixer]], str]

ROW = {
    *("device", "mechanism", "pattern", "grid", "tokens", "pass", "forward_macs", "forward_flops", "weight_bytes"),
    *("ms", "fastest_ms", "slowest_ms", "repeats", "peak_bytes", "left_out"),
}


@pytest.fixture
def names(laboratory: Any, register: Register) -> list[str]:
    """Linear: 2 us and 5 kB a token. Quadratic: 1 us a pair of tokens, 4 B a pair."""
    laboratory.ms |= {"Straight": lambda n: 2e-3 * n, "Square": lambda n: 1e-3 * n * n}
    laboratory.megabytes |= {"Straight": lambda n: 5e-3 * n, "Square": lambda n: 4e-6 * n * n}
    return [register(laboratory.mixer("Straight", "N")), register(laboratory.mixer("Square", "N^2"))]


def rows_of(report: dict[str, Any], name: str, way: str = "forward") -> dict[int, dict[str, Any]]:
    return {row["tokens"]: row for row in report["rows"] if (row["mechanism"], row["pass"]) == (name, way)}


def test_known_costs_come_out(laboratory: Any, names: list[str]) -> None:
    saved: list[str] = []
    plan = Plan(names, grids=GRIDS, sizes=SIZES, repeats=4)
    report = bench(plan, instruments=laboratory.instruments, save=lambda report: saved.append(json.dumps(report)))
    assert json.loads(saved[-1]) == json.loads(json.dumps(report))
    assert [len(json.loads(text)["rows"]) for text in saved] == [2, 4, 6, 8, 10, 12]
    for way in ("forward", "training"):
        for name, ms, megabytes in (
            ("Straight", lambda n: 2e-3 * n, lambda n: 5e-3 * n),
            ("Square", lambda n: 1e-3 * n * n, lambda n: 4e-6 * n * n),
        ):
            rows = rows_of(report, name, way)
            assert sorted(rows) == [64, 256, 1024]
            for tokens, row in rows.items():
                assert set(row) == ROW
                assert row["ms"] == pytest.approx(ms(tokens))
                assert row["peak_bytes"] == round(1e6 * megabytes(tokens))
                assert row["forward_macs"] == tokens * 8 * 8
                assert row["forward_flops"] == 2 * row["forward_macs"]
                assert row["weight_bytes"] == 4 * (8 * 8 + 8)
                assert row["left_out"] is None
                assert 3 <= row["repeats"] <= 4


def test_what_is_reported_beside_the_rows(laboratory: Any, names: list[str]) -> None:
    report = bench(Plan([*names, "LinearAttention"], grids=GRIDS[:1], sizes=SIZES), instruments=laboratory.instruments)
    machine = report["machines"]["cpu"]
    assert {"device", "cpu", "threads", "torch", "python", "clock", "commit", "visionattn"} <= set(machine)
    assert report["settings"]["dim"] == 8
    assert report["settings"]["grids"] == [[8, 8]]
    assert report["mechanisms"]["LinearAttention"]["options"] == {"num_heads": 2}
    assert report["mechanisms"]["LinearAttention"]["causal_cross"] is True
    assert report["mechanisms"]["Square"]["family"] == "others"
    patterns = {(row["mechanism"], row["pattern"]) for row in report["rows"]}
    assert patterns == {
        *(("Straight", "self"), ("Square", "self")),
        *(("LinearAttention", pattern) for pattern in ("self", "causal-self", "cross")),
    }


def test_what_would_take_too_long_or_too_much_is_left_out_and_said(laboratory: Any, names: list[str]) -> None:
    """1024 tokens squared are 1.05 s. Without a count of its pairs a forecast goes by the linear layer alone."""
    limits = Limits(run_s=0.2, run_bytes=3_000_000)
    report = bench(
        Plan(names, grids=(*GRIDS, (64, 64)), sizes=SIZES, limits=limits), instruments=laboratory.instruments
    )
    square, straight = rows_of(report, "Square"), rows_of(report, "Straight")
    assert [square[n]["left_out"] for n in (64, 256)] == [None, None]
    assert square[1024]["left_out"] == "predicted 0.3 s a run, over the limit of 0.2 s"
    assert square[1024]["ms"] is None
    assert straight[256]["left_out"] is None
    assert straight[1024]["left_out"] == "predicted 0.0 GB, over the limit of 0.003 GB"
    assert straight[4096]["left_out"] is not None


def test_a_large_first_map_is_foreseen_from_a_smaller_one(laboratory: Any, names: list[str]) -> None:
    limits = Limits(run_s=3.0)
    report = bench(Plan(names, grids=((64, 64),), sizes=SIZES, limits=limits), instruments=laboratory.instruments)
    assert sorted({row["tokens"] for row in report["rows"]}) == [4096]
    assert rows_of(report, "Square")[4096]["left_out"] == "predicted 4.2 s a run, over the limit of 3 s"
    assert rows_of(report, "Straight")[4096]["ms"] == pytest.approx(8.192)


def test_the_dearest_are_left_out_where_time_runs_out(laboratory: Any, names: list[str]) -> None:
    """The first two maps take 1.4 of the two seconds; seven runs of Square on the third are foreseen to take 1.8."""
    plan = Plan(names, grids=GRIDS, sizes=SIZES, limits=Limits(minutes=2 / 60))
    report = bench(plan, instruments=laboratory.instruments)
    assert rows_of(report, "Square")[256]["left_out"] is None
    said = "no time left of the 0.0333333 minutes of the whole bench"
    assert [rows_of(report, "Square", way)[1024]["left_out"] for way in ("forward", "training")] == [said, said]
    assert rows_of(report, "Straight", "training")[1024]["ms"] == pytest.approx(2.048)


class BreaksOnLargeMaps(TokenMixer):
    claims = Claims(paper="-", cost="N")

    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__(dim, grid)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if x.shape[1] > 31 and x.device.type == "cpu":
            raise RuntimeError("out of memory:\n  asked for too much")
        return self.proj(x)


class Mixes(BreaksOnLargeMaps):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x + x.mean(dim=0))


def test_a_mechanism_that_fails_is_one_row(laboratory: Any, names: list[str], register: Register) -> None:
    report = bench(
        Plan([register(BreaksOnLargeMaps), *names], grids=GRIDS, sizes=SIZES), instruments=laboratory.instruments
    )
    rows = rows_of(report, "BreaksOnLargeMaps")
    assert rows[256]["left_out"] is None
    assert rows[1024]["left_out"] == "failed: out of memory: asked for too much"
    assert rows_of(report, "Straight")[1024]["ms"] is not None


def test_a_mechanism_that_breaks_the_contract_is_refused_by_name(
    laboratory: Any, names: list[str], register: Register
) -> None:
    said: list[str] = []
    report = bench(
        Plan([register(Mixes), *names], grids=GRIDS[:1], sizes=SIZES),
        instruments=laboratory.instruments,
        say=said.append,
    )
    assert "maps of a batch do not mix" in report["mechanisms"]["Mixes"]["refused"]
    assert said[0].startswith("Mixes is refused: maps of a batch do not mix")
    assert {row["mechanism"] for row in report["rows"]} == set(names)


def test_on_the_real_clock(register: Register) -> None:
    plan = Plan(["EfficientAttention", "SoftmaxAttention"], grids=((4, 6),), sizes=SIZES, repeats=3)
    report = bench(plan)
    assert len(report["rows"]) == 2 * 3 * 2
    for row in report["rows"]:
        assert 0 < row["fastest_ms"] <= row["ms"] <= row["slowest_ms"] < 1e4
        assert row["repeats"] == 3
        assert row["peak_bytes"] >= 4 * 24 * 8  # the answer is in it
    by_case = {(row["mechanism"], row["pattern"], row["pass"]): row["peak_bytes"] for row in report["rows"]}
    assert by_case["SoftmaxAttention", "self", "training"] > by_case["SoftmaxAttention", "self", "forward"]
    assert torch.is_grad_enabled()

"""`visionattn attention bench` and `visionattn attention efficiency-length`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor, nn

from visionattn.attention.base import Claims, TokenMixer
from visionattn.attention.build import list_attention
from visionattn.cli.main import main
from visionattn.registry import ATTENTION

SMALL = ["--dim", "16", "--heads", "2"]


class MixesMaps(TokenMixer):
    claims = Claims(paper="-", cost="N")

    def __init__(self, dim: int, grid: Sequence[int] | None = None) -> None:
        super().__init__(dim, grid)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(x + x.mean(dim=0))


def test_a_bench_of_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bench"
    names = ["EfficientAttention", "SoftmaxAttention"]
    arguments = ["attention", "bench", *names, "--patterns", "self", "--grids", "6x6", "4x4", *SMALL, "--repeats", "3"]
    assert main([*arguments, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    report = json.loads((out / "bench.json").read_text())
    assert report["settings"]["grids"] == [[4, 4], [6, 6]]
    assert len(report["rows"]) == 2 * 2 * 2
    assert all(row["ms"] > 0 for row in report["rows"])
    charts = ["self_forward_time", "self_training_time", "self_training_memory", "self_multiplications"]
    assert sorted(path.stem for path in out.glob("*.png")) == sorted(charts)
    for part in (*names, "4x4, ms", "6x6, ms", "M MACs", "cpu 4 x 4 forward: 2 measured", "16 channels, 2 heads"):
        assert part in printed
    assert all(line == line.rstrip() for line in printed.splitlines())

    accuracy = tmp_path / "longrange.json"
    cells = {f"curves | {name} | {seed}": {"mIoU": 80.0 + seed} for name in names for seed in (0, 1)}
    accuracy.write_text(json.dumps({"cells": cells}))
    redraw = ["attention", "bench", "--redraw", str(out / "bench.json"), "--accuracy", str(accuracy)]
    assert main([*redraw, "--out", str(tmp_path / "again")]) == 0
    assert sorted(path.stem for path in (tmp_path / "again").glob("*")) == sorted([*charts, "accuracy_curves"])


def test_a_broken_mechanism_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    list_attention()
    monkeypatch.setattr(ATTENTION, "_module_dict", ATTENTION.module_dict | {"MixesMaps": MixesMaps})
    arguments = ["--patterns", "self", "--grids", "4x4", *SMALL, "--repeats", "3", "--out", str(tmp_path)]
    assert main(["attention", "bench", "MixesMaps", *arguments]) == 1
    assert "MixesMaps is refused and was not timed: maps of a batch do not mix" in capsys.readouterr().err
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["rows"] == []
    assert main(["attention", "efficiency-length", "MixesMaps", *SMALL, "--largest", "5"]) == 1
    assert "refused: maps of a batch do not mix" in capsys.readouterr().out


def test_the_length_of_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "length.json"
    arguments = ["EfficientAttention", "--largest", "8", *SMALL, "--searches", "2", "--rounds", "3"]
    assert main(["attention", "efficiency-length", *arguments, "--passes", "forward", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    report = json.loads(path.read_text())
    found = report["mechanisms"]["EfficientAttention"]["forward"]
    assert found["time"]["verdict"] in ("from", "always", "never", "unsettled")
    assert (found["memory"]["fewest"], found["memory"]["most"]) == (16, 64)
    assert len(found["time"]["searches"]) == 2
    for part in ("tokens from which SoftmaxAttention is beaten", "EfficientAttention", "time, forward", "2 searches"):
        assert part in printed
    assert "training" not in report["mechanisms"]["EfficientAttention"]


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (
            ["bench", "EficientAttention"],
            "no attention mechanism is called 'EficientAttention'; did you mean",
        ),
        (["bench", "SoftmaxAttention", "--heads", "3"], "SoftmaxAttention cannot be built with dim=128, heads=3"),
        (["bench", "--repeats", "0"], "--repeats 0: expected a number above 0"),
        (["bench", "--run-seconds", "-1"], "--run-seconds -1: expected a number above 0"),
        (["bench", "--device", "gpu7"], "--device gpu7: "),
        (["bench", "--redraw", "other.json"], "other.json is no report of `visionattn attention bench`"),
        (["bench", "--redraw", "broken.json"], "broken.json is no JSON: "),
        (["bench", "--redraw", "missing.json"], "No such file or directory: missing.json"),
        (["bench", "--accuracy", "other.json"], "other.json has no accuracies; expected "),
        (["efficiency-length"], "name mechanisms or give --all, one of the two"),
        (["efficiency-length", "LinearAttention", "--all"], "name mechanisms or give --all, one of the two"),
        (["efficiency-length", "SoftmaxAttention"], "SoftmaxAttention is what the others are compared with"),
        (
            ["efficiency-length", "LinearAttention", "--smallest", "9", "--largest", "9"],
            "the smallest side, 9, must",
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(
    arguments: list[str],
    answer: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.json").write_text('{"cells": {}}')
    Path("broken.json").write_text("{")
    assert main(["attention", *arguments]) == 2
    error = capsys.readouterr().err
    assert answer in error
    assert len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "other.json"]


@pytest.mark.parametrize("grid", ["64*64", "0x8", "8x8x8x8", "big"])
def test_a_grid_that_is_none(grid: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["attention", "bench", "--grids", grid])
    assert f"{grid!r} is no grid; write 64x64" in capsys.readouterr().err


def test_help_says_what_each_does(capsys: pytest.CaptureFixture[str]) -> None:
    for action, part in (("bench", "refused"), ("efficiency-length", "tokens from which")):
        with pytest.raises(SystemExit, match="0"):
            main(["attention", action, "--help"])
        assert part in " ".join(capsys.readouterr().out.split())

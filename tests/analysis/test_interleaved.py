"""Interleaved timing, by a clock that the test moves."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from visionattn.analysis import machine
from visionattn.analysis.interleaved import BURST_MS, interleaved


class Clock:
    """Moved by the runs alone, which take what they are told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def taking(self, name: str, ms: float) -> Callable[[], None]:
        def run() -> None:
            self.called.append(name)
            self.now += ms

        return run

    def meter(self, run: Callable[[], object], times: int) -> float:
        before = self.now
        for _ in range(times):
            run()
        return (self.now - before) / times


def test_medians_and_extremes_are_those_of_the_rounds() -> None:
    clock = Clock()
    spent = iter([5.0, 5.0, 7.0, 1.0, 2.0, 30.0, 3.0])  # the first two find out how many runs fit in a burst

    def run() -> None:
        clock.now += next(spent) * BURST_MS

    found = interleaved({"a": run}, clock.meter, repeats=5, budget_s=1e9)["a"]
    assert (found.ms, found.fastest_ms, found.slowest_ms, found.repeats) == (30.0, 10.0, 300.0, 5)


def test_every_round_has_all_candidates_in_bursts() -> None:
    clock = Clock()
    runs = {name: clock.taking(name, ms) for name, ms in (("short", 2.0), ("long", 40.0))}
    found = interleaved(runs, clock.meter, repeats=4, budget_s=1e9)
    assert {name: times.ms for name, times in found.items()} == {"short": 2.0, "long": 40.0}
    rounds = clock.called[4:]
    assert len(rounds) == 4 * (5 + 1)
    for number in range(4):
        assert sorted(rounds[6 * number : 6 * (number + 1)]) == ["long", *["short"] * 5]


def test_a_slow_candidate_sits_out_after_three_rounds() -> None:
    clock = Clock()
    runs = {"slow": clock.taking("slow", 900.0), "quick": clock.taking("quick", 20.0)}
    found = interleaved(runs, clock.meter, repeats=9, budget_s=1.0)
    assert (found["slow"].repeats, found["quick"].repeats) == (3, 9)


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git")
def test_the_commit_is_that_of_this_checkout_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed below somebody's repository is no part of it."""

    def git(*command: str) -> str:
        about = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *about, *command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init")
    for file in ("package/machine.py", "site-packages/machine.py"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).touch()
    git("add", "package")
    git("commit", "-m", "one")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "package" / "machine.py"))
    assert machine.checkout_commit() == git("rev-parse", "--short=12", "HEAD")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "site-packages" / "machine.py"))
    assert machine.checkout_commit() == "unknown"
    (tmp_path / "package" / "machine.py").write_text("changed")
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "package" / "machine.py"))
    assert machine.checkout_commit().endswith("+")

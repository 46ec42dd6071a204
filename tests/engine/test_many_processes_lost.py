"""A process that is gone ends the run in time and by name; signals and checkpoints of two processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from random_run import ITERATIONS, differences, random_config, without_times
from ranks import Rank, finished, in_ranks, started

from visionattn.cli.main import main
from visionattn.engine.launch import leave_processes
from visionattn.engine.runner import Runner
from visionattn.engine.watch import in_company
from visionattn.weights.durable import verify
from visionattn.weights.reading import read_checkpoint


@HOOKS.register_module()
class AccidentHook(Hook):
    """What happens to one process after three iterations."""

    priority = "VERY_HIGH"

    def __init__(self, kind: str, rank: int = 1) -> None:
        self.kind = kind
        self.rank = rank

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter != 3 or runner.rank != self.rank:
            return
        Path("accident").write_text(str(time.monotonic()))
        if self.kind == "exception":
            raise ValueError("sample 7 cannot be read")
        if self.kind == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.kind == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.5)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Laying out a config's text is most of so short a run.
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))


def _train(folder: Path, *, workers: int = 0, accident: dict[str, Any] | None = None, resume: bool = False) -> None:
    config = random_config(folder, workers=workers)
    config.launcher = "pytorch"
    config.env_cfg = {"dist_cfg": {"silence": 6.0}}
    config.resume = resume
    if accident:
        config.custom_hooks.append({"type": "AccidentHook", **accident})
    with in_company():
        Runner.from_cfg(config).train()
        leave_processes()


def _assert_alone(ranks: list[Rank]) -> None:
    """Nothing that the processes began is left: a loader's workers end with their process."""
    end = time.monotonic() + 15
    while left := _of_sessions([rank.pid for rank in ranks]):
        assert time.monotonic() < end, f"left running: {left}"
        time.sleep(0.2)


def _of_sessions(sessions: list[int]) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pid=,sid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    return [" ".join(row) for row in rows if int(row[1]) in sessions and not row[2].startswith("Z")]


@pytest.mark.parametrize(
    ("lost", "kind", "said"),
    [
        (1, "kill", r"rank 1 \(\S+, process \d+\) is gone: killed, out of memory, or its machine is down"),
        (0, "kill", r"rank 0 \(\S+, process \d+\) is gone"),
        (1, "exception", r"rank 1 \(\S+, process \d+\) failed: ValueError: sample 7 cannot be read"),
        (1, "stop", r"rank 1 \(\S+, process \d+\) is gone"),
    ],
    ids=["killed", "first-killed", "exception", "stopped"],
)
def test_a_process_that_is_gone_ends_the_run_by_name(lost: int, kind: str, said: str, tmp_path: Path) -> None:
    ranks = started(
        lambda rank: (os.setsid(), _train(tmp_path / "run", workers=2, accident={"kind": kind, "rank": lost})),
        tmp_path / "ranks",
    )
    other = ranks[1 - lost]
    finished([other])
    if kind == "stop":
        os.kill(ranks[lost].pid, signal.SIGKILL)
    finished([ranks[lost]], timeout=5)
    assert other.code == 1, other.output
    assert other.begun + other.seconds - float(Path("accident").read_text()) < 30
    assert re.search(f"^visionattn: error: {said}", other.output, re.MULTILINE), other.output
    assert "Traceback" not in other.output
    _assert_alone(ranks)
    assert verify(tmp_path / "run" / "iter_3.pth")


@pytest.mark.parametrize("signalled", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_saves_once_and_ends_all(signalled: int, tmp_path: Path) -> None:
    in_ranks(lambda rank: _train(tmp_path / "uncut"), tmp_path / "ranks")
    cut = tmp_path / "cut"
    accident = {"kind": "signal", "rank": signalled}
    ranks = in_ranks(lambda rank: _train(cut, accident=accident), tmp_path / "ranks", expect=143)
    assert (cut / "last_checkpoint").read_text().endswith("iter_4.pth")
    assert verify(cut / "iter_4.pth")
    name = "SIGTERM" if signalled == 0 else "another process's signal"
    assert f"stopped by {name} after iteration 4: saved {cut / 'iter_4.pth'}" in ranks[0].output
    assert "saved" not in ranks[1].output
    in_ranks(lambda rank: _train(cut, resume=True), tmp_path / "ranks")
    found, expected = (read_checkpoint(folder / f"iter_{ITERATIONS}.pth") for folder in (cut, tmp_path / "uncut"))
    assert differences(without_times(found), without_times(expected)) == []


def test_a_mistake_that_the_first_process_finds_ends_the_others(tmp_path: Path) -> None:
    """It checks the data while the others wait for it."""
    config = random_config(tmp_path / "run")
    config.train_dataloader.dataset = {"type": "TinyData", "bad_label": True}
    config.env_cfg = {"dist_cfg": {"silence": 6.0}}
    file = tmp_path / "config.py"
    config.dump(str(file))

    def rank(number: int) -> None:
        raise SystemExit(main(["train", str(file), "--launcher", "pytorch"]))

    first, other = in_ranks(rank, tmp_path / "ranks", expect=None)
    assert first.code == 2
    assert first.output.splitlines()[-1].startswith("visionattn: error: ")
    assert "label 7" in first.output
    assert other.code == 1, other.output
    assert re.search(r"visionattn: error: rank 0 \(\S+, process \d+\) (failed: .*label 7|is gone)", other.output)
    assert "Traceback" not in other.output


_PROGRAM = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import test_many_processes_lost as program
program._train(Path({folder!r}), workers=1, accident=dict(kind={kind!r}, rank=1))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "reported"), [("kill", "exitcode  : -9"), ("signal", "exitcode  : 143")])
def test_torchrun_ends_with_its_processes(kind: str, reported: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests / "engine"), str(tests.parent)]
    program.write_text(_PROGRAM.format(path=paths, folder=str(tmp_path / "run"), kind=kind))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(program)]
    torchrun = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    output, _ = torchrun.communicate(timeout=300)
    assert torchrun.returncode == 1
    assert reported in output, output
    if kind == "kill":
        assert re.search(r"^visionattn: error: rank 1 \(\S+, process \d+\) is gone", output, re.MULTILINE), output
    assert _of_sessions([torchrun.pid]) == []
    assert verify(tmp_path / "run" / ("iter_3.pth" if kind == "kill" else "iter_4.pth"))

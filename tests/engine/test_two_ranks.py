"""Two processes leave out the same steps, and go on as they stopped, each with its own random numbers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from random_run import differences, log_lines, without_times

from visionattn.weights.reading import read_checkpoint

SCRIPT = Path(__file__).parents[1] / "two_rank_run.py"


def _run(work_dir: Path, resume_from: str = "-", **options: Any) -> list[dict[str, torch.Tensor]]:
    """Trains in two processes; the weights that each ends with."""
    work_dir.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    common["GLOO_SOCKET_IFNAME"] = "lo"
    command = [sys.executable, str(SCRIPT), str(work_dir), resume_from, json.dumps(options)]
    processes = [
        subprocess.Popen(
            command, cwd=work_dir, env={**common, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.DEVNULL
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait(timeout=240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [torch.load(work_dir / f"rank_{rank}.pth") for rank in (0, 1)]


def _parameters(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if "running" not in name}


@pytest.mark.slow
def test_a_loss_that_is_nan_on_one_is_left_out_on_both(tmp_path: Path) -> None:
    first, second = _run(tmp_path, spoilt=[4, 9, 10])
    assert differences(_parameters(first), _parameters(second)) == []
    assert all(value.isfinite().all() for value in second.values())
    found = {path.name for path in (tmp_path / "non_finite").iterdir()}
    assert found == {f"iter_{number}{rank}.json" for number in (4, 9, 10) for rank in ("", "_rank_1")}
    before, after = (read_checkpoint(tmp_path / f"iter_{number}.pth")["state_dict"] for number in (3, 4))
    assert differences(dict(before), dict(after)) == []


@pytest.mark.slow
def test_both_go_on_as_they_stopped(tmp_path: Path) -> None:
    """In the middle of an accumulation, where each process has gradients of its own."""
    options = {"feature": "accumulation", "optimizer": "SGD"}
    uncut = _run(tmp_path / "uncut", **options)
    cut = _run(tmp_path / "cut", str(tmp_path / "uncut" / "iter_13.pth"), **options)
    for rank in (0, 1):
        assert differences(dict(cut[rank]), dict(uncut[rank])) == []
    one, other = (read_checkpoint(tmp_path / name / "iter_24.pth") for name in ("cut", "uncut"))
    assert differences(without_times(one), without_times(other)) == []
    assert log_lines(tmp_path / "cut", after=13) == log_lines(tmp_path / "uncut", after=13)
    gradients = read_checkpoint(tmp_path / "uncut" / "iter_13.pth")["run_state"]["gradients"]
    assert not torch.equal(gradients[0]["head.weight"], gradients[1]["head.weight"])

"""Processes find each other by torchrun's and SLURM's environment, without a GPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visionattn.engine.launch import join_processes, slurm_environment, wrapper_config

ROOT = Path(__file__).parents[2]
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_NODELIST": "node7"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


def test_slurm_is_told_as_torchrun() -> None:
    assert slurm_environment(SLURM) == {
        "RANK": "5",
        "WORLD_SIZE": "8",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "node7",
        "MASTER_PORT": "29500",
    }
    given = slurm_environment({**SLURM, "MASTER_ADDR": "here", "MASTER_PORT": "1234"})
    assert (given["MASTER_ADDR"], given["MASTER_PORT"]) == ("here", "1234")


def test_a_list_of_machines_is_asked_of_scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {**SLURM, "SLURM_JOB_NODELIST": "node[3-9]"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"first machine of 'node\[3-9\]'; set MASTER_ADDR"):
        slurm_environment(many)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames node[3-9]" ] && printf "node3\\nnode4\\n"\n')
    scontrol.chmod(0o755)
    assert slurm_environment(many)["MASTER_ADDR"] == "node3"


@pytest.mark.parametrize(
    ("launcher", "message"),
    [
        ("pytorch", "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set: start by  torchrun"),
        ("slurm", "SLURM_PROCID, SLURM_NTASKS, SLURM_LOCALID is not set: start by  srun"),
        ("mpi", "launcher='mpi' is not known; use none, pytorch, slurm"),
    ],
)
def test_a_launcher_that_did_not_start_this_process_is_named(launcher: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        join_processes(launcher)


def test_one_process_joins_nothing() -> None:
    join_processes("none")
    assert not torch.distributed.is_initialized()


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU mmengine's own defaults hold")
def test_without_a_gpu_the_wrapper_names_none() -> None:
    assert wrapper_config(None, True) == {
        "type": "MMDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": True,
        "device_ids": None,
    }
    assert wrapper_config({"static_graph": True}) == {"static_graph": True, "device_ids": None}
    sharded = {"type": "MMFullyShardedDataParallel"}
    assert wrapper_config(sharded) == sharded


_SUM = """
import sys, torch
from torch import distributed
from visionattn.engine.launch import join_processes, leave_processes
join_processes(sys.argv[1], timeout=60)
rank = torch.tensor(float(distributed.get_rank() + 1))
distributed.all_reduce(rank)
assert rank == 3 and distributed.get_world_size() == 2, rank
leave_processes()
"""


@pytest.mark.parametrize("launcher", ["pytorch", "slurm"])
def test_two_processes_add_up(launcher: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    started = []
    for rank in ("0", "1"):
        names = ("RANK", "LOCAL_RANK") if launcher == "pytorch" else ("SLURM_PROCID", "SLURM_LOCALID")
        size = "WORLD_SIZE" if launcher == "pytorch" else "SLURM_NTASKS"
        environment = {**os.environ, **dict.fromkeys(names, rank), size: "2", "PYTHONPATH": str(ROOT)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": ""}
        started.append(subprocess.Popen([sys.executable, "-c", _SUM, launcher], env=environment))
    assert [process.wait(timeout=120) for process in started] == [0, 0]

"""A function run by several processes of one run, forked from the test: nothing is imported again."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import visionattn.segmentation  # noqa: F401  # what every one of them would import as soon as it builds a model

# A process's first backward fixes how many devices its autograd has threads for, and once there is such a thread no
# child may call backward. A fake tensor (torch.compile, torch.export) puts in a CUDA device that is not there: the
# first backward comes before any of them.
if not torch.cuda.device_count():
    torch.zeros((), requires_grad=True).backward()


@dataclass
class Rank:
    """One process, as `started` began it.

    Attributes:
        code: its exit code, negative for a signal's; None while it runs.
        seconds: how long it ran.
    """

    pid: int
    folder: Path
    number: int
    begun: float
    code: int | None = None
    seconds: float = 0.0

    @property
    def output(self) -> str:
        return (self.folder / f"rank_{self.number}.txt").read_text()

    @property
    def result(self) -> Any:
        """What the function returned."""
        return torch.load(self.folder / f"rank_{self.number}.pt", weights_only=True)


def in_ranks(function: Callable[[int], Any], folder: Path, size: int = 2, expect: int | None = 0) -> list[Rank]:
    """The processes, ended; each has called function(rank) with torchrun's environment.

    Args:
        expect: the exit code of all; None for any.
    """
    ranks = finished(started(function, folder, size))
    for rank in ranks:
        assert expect is None or rank.code == expect, f"rank {rank.number}: {rank.code}\n{rank.output}"
    return ranks


def started(function: Callable[[int], Any], folder: Path, size: int = 2) -> list[Rank]:
    """Processes that run; `finished` ends them."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    sys.stdout.flush()
    sys.stderr.flush()
    ranks = []
    for number in range(size):
        pid = os.fork()
        if pid == 0:
            _child(function, folder, number, environment)
        ranks.append(Rank(pid, folder, number, time.monotonic()))
    return ranks


def finished(ranks: list[Rank], timeout: float = 300) -> list[Rank]:
    """Waits for all of them; kills those that take longer, whose code is then -9."""
    end = time.monotonic() + timeout
    waiting = list(ranks)
    while waiting:
        for rank in list(waiting):
            if time.monotonic() > end:
                os.kill(rank.pid, signal.SIGKILL)
            pid, status = os.waitpid(rank.pid, os.WNOHANG)
            if pid:
                rank.code, rank.seconds = os.waitstatus_to_exitcode(status), time.monotonic() - rank.begun
                waiting.remove(rank)
        time.sleep(0.05)
    return ranks


def _child(function: Callable[[int], Any], folder: Path, number: int, environment: dict[str, str]) -> None:
    code = 1
    try:
        if sys.platform == "linux":  # a test that is killed leaves nothing
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        os.environ.update(environment, RANK=str(number), LOCAL_RANK=str(number))
        output = os.open(folder / f"rank_{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        torch.set_num_threads(1)
        torch.save(function(number), folder / f"rank_{number}.pt")
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

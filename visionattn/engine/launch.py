"""Joining the processes of a run: torchrun's or SLURM's, over NCCL on GPUs and gloo on CPUs.

mmengine's launchers insist on CUDA; these set the same environment and leave its Runner nothing to do.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from visionattn.engine.watch import SILENCE, begin_watch, end_watch

LAUNCHERS = ("none", "pytorch", "slurm")

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_PORT = "29500"
_WRAPPER = "MMDistributedDataParallel"


def join_processes(launcher: str, backend: str = "nccl", timeout: float = 600, silence: float = SILENCE) -> None:
    """Makes this process one of its run's; nothing with the launcher "none", or where it is one already.

    Args:
        launcher: of `LAUNCHERS`.
        backend: of torch.distributed; "nccl" stands for gloo where there is no GPU.
        timeout: seconds after which a process that waits for the others gives up.
        silence: seconds after which one that is not heard of counts as gone, and the others end.
    Raises:
        ValueError: an unknown launcher, one that did not start this process, or more processes than GPUs.
    """
    if launcher == "none" or distributed.is_initialized():
        return
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher={launcher!r} is not known; use {', '.join(LAUNCHERS)}")
    if launcher == "slurm":
        os.environ.update(slurm_environment(os.environ))
    _require(_TORCHRUN, os.environ, "--launcher pytorch", "torchrun --nproc-per-node=N tools/train.py CONFIG")
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this machine has no GPU: {torch.cuda.device_count()} are visible; "
                "start as many processes as there are GPUs"
            )
        torch.cuda.set_device(local_rank)
    elif backend == "nccl":
        backend = "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=timeout))
    if distributed.get_world_size() > 1:
        begin_watch(silence)


def leave_processes() -> None:
    """Ends what `join_processes` began; at the end of a run that went well, as it waits for the others."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        end_watch()
        distributed.destroy_process_group()


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """torchrun's variables from those of a process that srun started.

    Raises:
        ValueError: srun did not start this process, or its first machine cannot be told.
    """
    _require(_SLURM, environment, "--launcher slurm", "srun --ntasks-per-node=N visionattn train CONFIG")
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_NTASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "MASTER_ADDR": environment.get("MASTER_ADDR") or _first_host(environment),
        "MASTER_PORT": environment.get("MASTER_PORT") or _PORT,
    }


def wrapper_config(wrapper: Mapping[str, Any] | None, find_unused_parameters: bool = False) -> dict[str, Any] | None:
    """The config of what wraps the model: mmengine's, which names a GPU, without it where there is none."""
    if torch.cuda.is_available() or not str((wrapper or {}).get("type", _WRAPPER)).endswith("DistributedDataParallel"):
        return None if wrapper is None else dict(wrapper)
    defaults = {"type": _WRAPPER, "broadcast_buffers": False, "find_unused_parameters": find_unused_parameters}
    return {**(defaults if wrapper is None else wrapper), "device_ids": None}


def _first_host(environment: Mapping[str, str]) -> str:
    nodes = environment.get("SLURM_JOB_NODELIST") or environment.get("SLURM_NODELIST", "")
    if nodes and not any(character in nodes for character in "[,"):
        return nodes
    try:
        listed = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
        return listed.stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError) as error:
        raise ValueError(f"scontrol cannot tell the first machine of {nodes!r}; set MASTER_ADDR to its name") from error


def _require(names: tuple[str, ...], environment: Mapping[str, str], launcher: str, command: str) -> None:
    missing = [name for name in names if name not in environment]
    if missing:
        raise ValueError(f"{launcher}, but {', '.join(missing)} is not set: start by  {command} {launcher}")

"""Functions run in several processes that are joined by gloo.

A function of `tests/segmentation/processes.py` is called with (folder, rank) in each, and what it returns comes back.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

_PROGRAM = """
import json, sys
import torch.distributed as dist
from datetime import timedelta
sys.path[:0] = {path!r}
from segmentation import processes
folder, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group("gloo", init_method="tcp://127.0.0.1:{port}", rank=rank, world_size={processes},
                        timeout=timedelta(seconds=60))
result = getattr(processes, {function!r})(folder, rank)
print("RESULT", json.dumps(result), flush=True)
dist.destroy_process_group()
"""


def run_in_processes(function: str, processes: int, folder: Path) -> list[Any]:
    """What the function returns in each process, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tests = str(Path(__file__).parent)
    program = _PROGRAM.format(path=[tests], port=port, processes=processes, function=function)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        )
        for rank in range(processes)
    ]
    results = []
    try:
        for child in children:
            out, err = child.communicate(timeout=120)
            assert child.returncode == 0, err
            results.append(json.loads(out.rpartition("RESULT")[2]))
    finally:
        for child in children:
            child.kill()
    return results

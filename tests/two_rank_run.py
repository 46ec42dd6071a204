"""One process of a run of two, for tests.

RANK=0 WORLD_SIZE=2 ... python two_rank_run.py WORK_DIR RESUME_FROM|- OPTIONS
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from random_run import random_config

from visionattn.engine.runner import Runner


class Spoil(Hook):
    """A nan in the second process's batches of some iterations."""

    def __init__(self, iterations: list[int]) -> None:
        self.iterations = iterations

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if get_rank() == 1 and batch_idx + 1 in self.iterations:
            data_batch["x"][0, 0] = float("nan")


def main() -> None:
    work_dir, resume_from, options = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    spoilt = options.pop("spoilt", [])
    config = random_config(work_dir, launcher="pytorch", env_cfg={"dist_cfg": {"backend": "gloo"}}, **options)
    if resume_from != "-":
        config.resume, config.load_from = True, resume_from
    runner = Runner.from_cfg(config)
    runner.register_hook(Spoil(spoilt))
    runner.train()
    torch.save(runner.model.state_dict(), work_dir / f"rank_{os.environ['RANK']}.pth")


if __name__ == "__main__":
    main()

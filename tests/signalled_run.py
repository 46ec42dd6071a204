"""A run in a process of its own that says where it is, for tests that signal it.

    python signalled_run.py WORK_DIR '{"workers": 2}' [PLACE]

PLACE: iteration or validation; the process says so and waits there, the first time it comes to it after iteration 10.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from random_run import random_config

from visionattn.engine.runner import Runner


class Wait(Hook):
    """Stays for up to ten seconds where it is told to, as a step may that takes long."""

    priority = "VERY_HIGH"

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.place == "iteration" and batch_idx == 10:
            self._wait()

    def before_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.place == "validation" and runner.iter == 10 and batch_idx == 1:
            self._wait()

    def _wait(self) -> None:
        (self.folder / "there").touch()
        for _ in range(100):
            if (self.folder / "go").exists():
                return
            time.sleep(0.1)


def main() -> None:
    work_dir, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    interval = options.pop("interval", 100)
    config = random_config(work_dir, **options)
    config.default_hooks.checkpoint.interval = interval
    config.resume = True
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / "pid").write_text(str(os.getpid()))
    runner = Runner.from_cfg(config)
    if len(sys.argv) > 3:
        runner.register_hook(Wait(sys.argv[3], work_dir))
    runner.train()


if __name__ == "__main__":
    main()

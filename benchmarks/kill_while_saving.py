"""Kills a process that saves, at random moments, and counts the checkpoints that can no longer be read.

    python benchmarks/kill_while_saving.py     # 1,000 kills: of our writer, and of torch.save for comparison
    python benchmarks/kill_while_saving.py --kills 200 --megabytes 20

The process writes two files in turn, over and over. kill -9 ends a process, not the machine: what fsync is there for,
a power cut, is not tried here.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from visionattn.weights.durable import remove_leftovers, save_durably
from visionattn.weights.reading import read_checkpoint

Save = Callable[[Any, Path], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--megabytes", type=float, default=0.5, help="size of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has none of the others
    for name, save in (("visionattn", save_durably), ("torch.save", torch.save)):
        with tempfile.TemporaryDirectory() as folder:
            lost, saves, seconds = kill(Path(folder), args.kills, save, args.megabytes, random.Random(args.seed))
        print(f"{name:<11} {args.kills} kills, about {saves} saves, {lost} unreadable files, {seconds:.0f} s")


def kill(folder: Path, kills: int, save: Save, megabytes: float, chance: random.Random) -> tuple[int, int, float]:
    """Unreadable files found, files written, seconds."""
    begin, lost, saves = time.perf_counter(), 0, 0
    files = [folder / "0.pth", folder / "1.pth"]
    content = {"weights": torch.zeros(int(megabytes * 2**18))}
    for file in files:
        save(content, file)
    took = (time.perf_counter() - begin) / 2
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            save_for_ever(save, content, files)
        # Anywhere between nothing and the third save.
        time.sleep(chance.uniform(0, 3 * took))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for file in files:
            try:
                weights = read_checkpoint(file)["weights"]
                lost += int((weights != weights[0]).any())
                saves += int(weights[0] > 0)
            except (ValueError, OSError):
                lost += 1
        remove_leftovers(folder)
    return lost, saves, time.perf_counter() - begin


def save_for_ever(save: Save, content: dict[str, torch.Tensor], files: list[Path]) -> None:
    try:
        while True:
            for file in files:
                content["weights"] += 1
                save(content, file)
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()

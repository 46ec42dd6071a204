"""Runs that draw random numbers wherever a run can: order, python, numpy, torch and albumentations in the samples,
dropout in the model."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from tiny_run import TinyData, TinyModel, tiny_config
from torch import Tensor, nn

from visionattn.data.randomness import generators, sample_seed

ITERATIONS = 24

_TIMES = ("time", "data_time", "memory", "eta")


@DATASETS.register_module()
class RandomData(TinyData):
    """Samples made of random numbers of all kinds; the indices read are appended to the file `record`."""

    def __init__(self, record: str | None = None, length: int = 14) -> None:
        super().__init__(length)
        self.record = record

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.record is not None:
            with open(self.record, "a") as file:
                os.write(file.fileno(), f"{index}\n".encode())
        of_numpy, of_python = generators(sample_seed())
        noise = [random.gauss(0, 1), np.random.randn(), torch.randn(()).item(), of_numpy.normal(), of_python.random()]
        base = super().__getitem__(index)
        return {**base, "x": base["x"] + torch.tensor([noise[0] + noise[3], noise[1] + noise[4], noise[2]]) / 4}


@MODELS.register_module()
class RandomModel(TinyModel):
    """With dropout, and noise of numpy's and python's global generators on its scores."""

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        if not self.training:
            return super().forward(x, y, mode)
        hidden = nn.functional.dropout(self.norm(self.hidden(x)), 0.3)
        scores = self.head(hidden) + 0.1 * np.random.rand() * random.random()
        return {"loss": nn.functional.cross_entropy(scores, y)}


def random_config(
    work_dir: Path,
    *,
    optimizer: str = "AdamW",
    workers: int = 0,
    feature: str = "none",
    sampler: str = "InfiniteSampler",
    record: Path | None = None,
    **changes: Any,
) -> Config:
    """A run of 24 iterations that saves after each.

    Args:
        feature: "ema", "accumulation", "bf16" or "none".
        record: where the training data's indices are written as they are read.
    """
    config = tiny_config(work_dir, model={"type": "RandomModel"}, **changes)
    config.train_dataloader.dataset = {"type": "RandomData", "record": None if record is None else str(record)}
    config.val_dataloader.dataset = {"type": "RandomData"}
    config.train_dataloader.num_workers = workers
    config.train_dataloader.sampler = {"type": sampler, "shuffle": True}
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": ITERATIONS, "val_interval": 5}
    options = {"SGD": {"lr": 0.05, "momentum": 0.9}, "AdamW": {"lr": 0.02}}[optimizer]
    config.optim_wrapper = {"optimizer": {"type": optimizer, **options}, "clip_grad": {"max_norm": 1.0}}
    config.param_scheduler = [
        {"type": "LinearLR", "start_factor": 0.1, "by_epoch": False, "begin": 0, "end": 7},
        {"type": "PolyLR", "power": 0.9, "by_epoch": False, "begin": 7, "end": ITERATIONS},
    ]
    hooks = [{"type": "EarlyStoppingHook", "monitor": "tiny/accuracy", "patience": 9, "rule": "greater"}]
    if feature == "ema":
        hooks.append({"type": "EMAHook", "momentum": 0.1})
    elif feature == "accumulation":
        config.optim_wrapper.accumulative_counts = 3
    elif feature == "bf16":
        config.optim_wrapper.type = "AmpOptimWrapper"
    config.custom_hooks = hooks
    config.default_hooks.checkpoint.update(interval=1, save_best="tiny/accuracy", rule="greater")
    return config


def log_lines(work_dir: Path, after: int = 0) -> list[dict[str, Any]]:
    """What the runs of a work dir logged of the iterations behind `after`, without times and memory."""
    files = sorted(work_dir.glob("*/vis_data/scalars.json"), key=lambda file: file.stat().st_mtime)
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if name.rpartition("/")[2] not in _TIMES}
        for line in lines
        if line["step"] > after
    ]


def without_times(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint but for times, memory, paths, the config's text, and counters that every beginning sets anew."""
    hub = checkpoint["message_hub"]
    scalars = {name: part for name, part in hub["log_scalars"].items() if name.rpartition("/")[2] not in _TIMES}
    info = {
        name: Path(value).name if name in ("last_ckpt", "best_ckpt") else value
        for name, value in hub["runtime_info"].items()
        if name not in (*_TIMES, "cfg", "experiment_name", "timestamp", "iter", "epoch")  # meta has the latter
    }
    meta = {name: checkpoint["meta"][name] for name in ("epoch", "iter", "seed", "dataset_meta")}
    return {**checkpoint, "meta": meta, "message_hub": {"log_scalars": scalars, "runtime_info": info}}


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Where two nests of plain data differ by a single bit."""
    if type(one) is not type(other):
        return [f"{name}: {type(one).__name__} and {type(other).__name__}"]
    if isinstance(one, dict):
        keys = [f"{name}.{key} is in one only" for key in set(one) ^ set(other)]
        return keys + [
            found for key in one if key in other for found in differences(one[key], other[key], f"{name}.{key}")
        ]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"{name}: {len(one)} and {len(other)} long"]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for index, pair in pairs for found in differences(*pair, f"{name}[{index}]")]
    if isinstance(one, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return [] if same else [f"{name}: {one} and {other}"]
    return [] if one == other else [f"{name}: {one!r} and {other!r}"]

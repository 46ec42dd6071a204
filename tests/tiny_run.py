"""A model, a dataset and a config for runs of a second: sixteen numbers, two classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from torch import Tensor, nn
from torch.nn import functional as F


@MODELS.register_module()
class TinyModel(BaseModel):
    def __init__(self, width: int = 4, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.hidden = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor, y: Tensor, mode: str = "tensor") -> Any:
        scores = self.head(self.norm(self.hidden(x)))
        return {"loss": F.cross_entropy(scores, y)} if mode == "loss" else list(scores.argmax(1))


@DATASETS.register_module()
class TinyData(torch.utils.data.Dataset[Any]):
    METAINFO = {"classes": ("low", "high"), "palette": [[0, 0, 0], [255, 255, 255]]}

    def __init__(self, length: int = 16, bad_label: bool = False) -> None:
        self.length = length
        self.bad_label = bad_label
        self.metainfo = dict(self.METAINFO)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.randn(3, generator=torch.Generator().manual_seed(index))
        return {"x": x, "y": int(x.sum() > 0)}

    def check(self) -> str:
        if self.bad_label:
            raise ValueError("sample 3 has label 7, allowed are 0..1")
        return f"checked {self.length} samples"


@METRICS.register_module()
class TinyAccuracy(BaseMetric):
    default_prefix = "tiny"

    def process(self, data_batch: dict[str, Tensor], data_samples: list[Tensor]) -> None:
        self.results += [float(p == y) for p, y in zip(data_samples, data_batch["y"], strict=True)]

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"accuracy": 100 * sum(results) / len(results)}


def tiny_config(work_dir: Path, **changes: Any) -> Config:
    """A run of eight iterations that validates and saves at four and eight; `changes` replace top-level keys."""
    loader = {
        "batch_size": 4,
        "num_workers": 0,
        "dataset": {"type": "TinyData"},
        "collate_fn": {"type": "default_collate"},
    }
    config = {
        "default_scope": "visionattn",
        "work_dir": str(work_dir),
        "model": {"type": "TinyModel"},
        "train_dataloader": {**loader, "sampler": {"type": "InfiniteSampler", "shuffle": True}},
        "val_dataloader": {**loader, "sampler": {"type": "DefaultSampler", "shuffle": False}},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 8, "val_interval": 4},
        "val_cfg": {},
        "val_evaluator": {"type": "TinyAccuracy"},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 0.01}},
        # Its state holds a function, which a checkpoint must do without.
        "param_scheduler": [{"type": "OneCycleLR", "eta_max": 0.1, "total_steps": 8, "by_epoch": False}],
        "default_hooks": {
            "logger": {"type": "LoggerHook", "interval": 2, "log_metric_by_epoch": False},
            "checkpoint": {"type": "CheckpointHook", "interval": 4, "by_epoch": False},
        },
        "log_processor": {"by_epoch": False},
        "randomness": {"seed": 3},
    }
    config["test_dataloader"], config["test_cfg"] = config["val_dataloader"], {}
    config["test_evaluator"] = config["val_evaluator"]
    return Config({**config, **changes})

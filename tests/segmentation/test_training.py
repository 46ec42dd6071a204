"""A small network through the Runner: pipeline, loss, metric, table and pictures together."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from visionattn.engine.runner import Runner
from visionattn.registry import HOOKS

NORM = {"type": "BN"}


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs["loss"].item())


def config(tree, work_dir, iterations=12):
    load = [{"type": "visionattn.LoadImage"}, {"type": "visionattn.LoadLabels"}]
    augment = {
        "type": "visionattn.Albumentations",
        "transforms": [
            {"type": "RandomScale", "scale_limit": (-0.5, 1.0), "p": 1.0},
            {"type": "RandomCrop", "height": 48, "width": 56, "pad_if_needed": True},
            {"type": "HorizontalFlip", "p": 0.5},
        ],
    }
    pack = [{"type": "mmseg.PackSegInputs"}]

    def loader(split, pipeline, shuffle, batch_size):
        return {
            "batch_size": batch_size,
            "num_workers": 0,
            "sampler": {"type": "InfiniteSampler" if shuffle else "DefaultSampler", "shuffle": shuffle},
            "dataset": {
                "type": "visionattn.MadeUpADE20K",
                "data_root": str(tree),
                "split": split,
                "pipeline": pipeline,
                "test_mode": not shuffle,
            },
        }

    return Config(
        {
            "default_scope": "mmseg",
            "work_dir": str(work_dir),
            "experiment_name": work_dir.name,
            "model": {
                "type": "mmseg.EncoderDecoder",
                "data_preprocessor": {
                    "type": "mmseg.SegDataPreProcessor",
                    "mean": [123.675, 116.28, 103.53],
                    "std": [58.395, 57.12, 57.375],
                    "size": (48, 56),
                },
                "backbone": {
                    "type": "mmseg.ResNet",
                    "depth": 18,
                    "base_channels": 8,
                    "num_stages": 2,
                    "strides": (1, 2),
                    "dilations": (1, 1),
                    "out_indices": (0, 1),
                    "norm_cfg": NORM,
                },
                "decode_head": {
                    "type": "mmseg.FCNHead",
                    "in_channels": 16,
                    "channels": 16,
                    "num_convs": 1,
                    "num_classes": 11,
                    "norm_cfg": NORM,
                    "loss_decode": {"type": "mmseg.CrossEntropyLoss", "avg_non_ignore": True},
                },
                "test_cfg": {"mode": "whole"},
            },
            "train_dataloader": loader("training", [*load, augment, *pack], True, 4),
            "val_dataloader": loader("validation", [*load, *pack], False, 1),
            "test_dataloader": loader("validation", [*load, *pack], False, 1),
            "val_evaluator": {"type": "visionattn.IoUMetric"},
            "test_evaluator": {"type": "visionattn.IoUMetric"},
            "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": iterations, "val_interval": iterations},
            "val_cfg": {"type": "ValLoop"},
            "test_cfg": {"type": "TestLoop"},
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "AdamW", "lr": 3e-3}},
            "default_hooks": {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 1000}},
            "custom_hooks": [
                {"type": "visionattn.PictureHook", "number": 2},
                {"type": "visionattn.ColourBaselineHook", "images": 4},
            ],
            "log_processor": {"by_epoch": False},
            "randomness": {"seed": 3},
        }
    )


@pytest.fixture
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained(tree, work_dir):
    losses = Losses()
    runner = Runner.from_cfg(config(tree, work_dir))
    runner.register_hook(losses)
    runner.train()
    return runner, losses.values


@pytest.mark.usefixtures("_one_thread")
def test_training_lowers_the_loss_repeats_by_its_seed_and_leaves_table_and_pictures(tree, tmp_path):
    runner, losses = trained(tree, tmp_path / "first")
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert sorted(file.name for file in (tmp_path / "first/pictures").iterdir()) == [
        "ADE_val_00000001.png",
        "ADE_val_00000004.png",
    ]
    log = next((tmp_path / "first").rglob("*.log")).read_text()
    assert "| buoy" in log
    last = [line for line in log.splitlines() if "mIoU 0." in line][-2:]
    assert "colour classifier mIoU 0." in last[0]
    assert last[1].startswith("mIoU 0.")
    metrics = runner.test()
    assert metrics.keys() >= {"mIoU", "mAcc", "aAcc", "mDice"}
    evaluation = tmp_path / "first/evaluation"
    assert json.loads((evaluation / "classes.json").read_text())["mIoU"] == metrics["mIoU"]
    images = [entry["image"] for entry in json.loads((evaluation / "images.json").read_text())]
    assert images == [image for image, _ in runner.test_dataloader.dataset.pairs()]
    assert last[1] == f"mIoU {metrics['mIoU'] / 100:.4f}"
    _, again = trained(tree, tmp_path / "second")
    assert again == losses


@pytest.mark.usefixtures("_one_thread")
def test_perfect_prediction_scores_perfectly(tree, tmp_path, monkeypatch):
    """The whole way from mask file to metric: logits that say the truth score 100, void or not."""
    runner = Runner.from_cfg(config(tree, tmp_path / "perfect"))
    model = runner.model

    def truth(inputs, data_samples=None):
        logits = torch.zeros(len(inputs), 11, *inputs.shape[-2:])
        for logit, sample in zip(logits, data_samples, strict=True):
            labels = sample.gt_sem_seg.data.clone()
            labels[labels == 255] = 0
            logit.scatter_(0, labels, 1.0)
        return model.postprocess_result(logits, data_samples)

    monkeypatch.setattr(model, "predict", truth)
    assert {name: runner.test()[name] for name in ("mIoU", "mAcc", "aAcc")} == {"mIoU": 100, "mAcc": 100, "aAcc": 100}


def test_hooks_are_found_by_name():
    for name in ("PictureHook", "ColourBaselineHook"):
        HOOKS.build({"type": f"visionattn.{name}"})

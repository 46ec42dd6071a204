"""A dry run counts parameters by part and by group, takes two steps, and leaves nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_config
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from visionattn.attention.build import build_attention
from visionattn.engine.dry_run import dry_run, parameter_lines


@pytest.fixture
def steps() -> Iterator[list[float]]:
    seen: list[float] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, args, kwargs: seen.append(1.0))
    yield seen
    handle.remove()


def test_the_report(tmp_path: Path, steps: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrapper = {
        "optimizer": {"type": "AdamW", "lr": 0.01, "weight_decay": 0.05},
        "paramwise_cfg": {"custom_keys": {"head": {"lr_mult": 0.1}}, "norm_decay_mult": 0.0},
        "accumulative_counts": 3,
    }
    tracker = [{"type": "WandbVisBackend"}]  # nothing of a dry run goes there
    config = tiny_config(
        tmp_path / "run", optim_wrapper=wrapper, visualizer={"type": "Visualizer", "vis_backends": tracker}
    )
    before = config.to_dict()
    lines = dry_run(config)
    assert lines[0].split() == ["parameters", "34"]
    parts = {line.split()[0]: int(line.split()[1]) for line in lines[1:4]}
    assert parts == {"hidden": 16, "norm": 8, "head": 10}
    assert lines[4].split(maxsplit=1) == ["optimiser", "AdamW by OptimWrapper"]
    # OneCycleLR begins at a 25th of its 0.1, whatever a group's own rate.
    assert [" ".join(line.split()) for line in lines[5:8]] == [
        "lr 0.01 first step 0.004 weight decay 0.05 16 in 2 tensors: hidden.weight, ...",
        "lr 0.01 first step 0.004 weight decay 0 8 in 2 tensors: norm.weight, ...",
        "lr 0.001 first step 0.004 weight decay 0.05 10 in 2 tensors: head.weight, ...",
    ]
    assert lines[8].startswith("loss  ")
    assert re.match(r"peak memory  \d+\.\d\d GiB", lines[10])
    assert len(steps) == 2
    assert list(tmp_path.iterdir()) == []
    assert config.to_dict() == before


def test_attention_is_counted_wherever_it_is() -> None:
    model = nn.Module()
    model.backbone = nn.Sequential(nn.Conv2d(3, 8, 1), build_attention("EfficientAttention", 8))
    model.head = nn.ModuleList([nn.MultiheadAttention(8, 2), nn.Linear(8, 2)])
    model.head[1].bias.requires_grad = False
    model.loss = nn.CrossEntropyLoss()
    inside = sum(p.numel() for p in model.backbone[1].parameters())
    assert [line.split(maxsplit=1) for line in parameter_lines(model)] == [
        ["parameters", f"{32 + inside + 288 + 18}, 2 of them frozen"],
        ["backbone", f"{32 + inside}"],
        ["attention", f"{inside}"],
        ["head", "306, 2 of them frozen"],
        ["attention", "288"],
    ]


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU its own memory is told")
def test_on_a_cpu_the_memory_is_the_process(tmp_path: Path) -> None:
    assert dry_run(tiny_config(tmp_path))[-1].endswith("GiB, of the whole process")

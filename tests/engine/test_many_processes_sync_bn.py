"""Synchronised batch norm is one process's batch norm on the joint batch."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import timm
import torch
from ranks import in_ranks
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionattn.engine.launch import join_processes, leave_processes
from visionattn.engine.sync_bn import CPUSyncBatchNorm, SyncBatchNormAct, synchronised
from visionattn.engine.wrapping import wrap

SIZES = (3, 2)
"""Images of each process's batch: not equally many."""


def _norms() -> nn.ModuleList:
    generator = torch.Generator().manual_seed(0)
    norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), BatchNormAct2d(4)])
    norms += [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)]
    for parameter in norms.parameters():
        parameter.data = torch.rand(4, generator=generator) + 0.5
    return norms.double()


def _batch() -> tuple[Tensor, Tensor]:
    """Images far from zero, where squares of sums would lose digits, and a weight of each output in the loss."""
    generator = torch.Generator().manual_seed(1)
    images = 1000 + torch.randn(sum(SIZES), 4, 5, 7, generator=generator, dtype=torch.float64)
    return images, torch.randn(sum(SIZES), 4, 5, 7, generator=generator, dtype=torch.float64)


def _results(norm: nn.Module, images: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Outputs and gradients of two steps, statistics, and the output in evaluation."""
    found: dict[str, Tensor] = {}
    for step in range(2):
        leaf = images.clone().requires_grad_()
        norm.zero_grad()
        out = norm(leaf * (step + 1))
        (out * weights).sum().backward()
        assert leaf.grad is not None
        found |= {f"out {step}": out.detach(), f"gradient {step}": leaf.grad}
    found |= {f"grad of {name}": p.grad for name, p in norm.named_parameters() if p.grad is not None}
    found |= dict(norm.named_buffers())
    if getattr(norm, "running_mean", None) is not None:  # else it is its batch's in evaluation too, and torch's as well
        found["evaluated"] = norm.eval()(images).detach()
    return found


def test_it_is_one_processes_norm_on_the_joint_batch(tmp_path: Path) -> None:
    images, weights = _batch()
    begin = [0, SIZES[0], sum(SIZES)]

    def rank(number: int) -> list[dict[str, Tensor]]:
        join_processes("pytorch")
        norms = synchronised(_norms(), "cpu")
        part = slice(begin[number], begin[number + 1])
        found = [_results(norm, images[part], weights[part]) for norm in norms]
        leave_processes()
        return found

    one, other = (rank.result for rank in in_ranks(rank, tmp_path))
    expected = [_results(norm, images, weights) for norm in _norms()]
    assert len(one) == len(expected) == 5
    for first, second, truth in zip(one, other, expected, strict=True):
        assert first.keys() == truth.keys()
        for name, value in truth.items():
            joint = first[name]
            if name.startswith("grad of"):
                joint = first[name] + second[name]
            elif value.dim() == 4:
                joint = torch.cat([first[name], second[name]])
            torch.testing.assert_close(joint, value, rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_a_model_keeps_its_names_and_parameters() -> None:
    model = timm.create_model("regnetx_002", num_classes=3)  # with BatchNormAct2d
    names = list(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    expected = model.eval()(images)
    weight = model.stem.bn.weight
    for device in ("cpu", "cuda"):
        made = synchronised(copy.deepcopy(model), device)
        norms = [part for part in made.modules() if isinstance(part, _BatchNorm)]
        assert len(norms) > 20
        assert all(isinstance(part, CPUSyncBatchNorm | nn.SyncBatchNorm) for part in norms)
        assert list(made.state_dict()) == names
        assert torch.equal(made(images), expected)
    assert synchronised(model, "cuda").stem.bn.weight is weight
    assert isinstance(model.stem.bn, SyncBatchNormAct)


def test_what_cannot_be_synchronised_is_named() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    with pytest.raises(ValueError, match=r"sync_bn: 1 is a Own, whose forward is its own"):
        synchronised(nn.Sequential(nn.Identity(), Own(3)), "cpu")
    with pytest.raises(ValueError, match=r"sync_bn='mmcv' must be \"torch\" or left out"):
        wrap(nn.BatchNorm2d(3), None, "mmcv")

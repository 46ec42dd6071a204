"""A detector's trained backbone in timm: the same maps, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from mmengine.optim import OptimWrapper
from tiny_detection import SWIN, batch, detector_config
from torch import nn

import visionattn.export.timm  # noqa: F401  # the names in timm
from visionattn.cli.main import main
from visionattn.registry import MODELS

EFFICIENT = {"type": "EfficientAttention", "key_dim": 8}
BACKBONES: dict[str, dict[str, Any]] = {
    "swin": SWIN,
    "resnet18": {
        "type": "visionattn.TimmBackbone",
        "model_name": "resnet18",
        "attention": [None, None, EFFICIENT, EFFICIENT],
        "timm_options": {"channels": (8, 8, 16, 16)},
        "out_indices": (1, 2, 3, 4),
    },
}


def trained(config: dict[str, Any]) -> nn.Module:
    """A detector after three steps; whatever starts at zero has left it."""
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-3))
    for _ in range(3):
        model.train_step(batch(), optimizer)
    return model.eval()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BACKBONES)
def test_timm_computes_the_same_maps(name: str, tmp_path: Path) -> None:
    config = detector_config("mask_rcnn", BACKBONES[name])
    torch.manual_seed(0)
    before = MODELS.build(config).backbone.state_dict()
    model = trained(config)
    assert any(not torch.equal(value, before[key]) for key, value in model.backbone.state_dict().items())
    torch.save({"state_dict": model.state_dict()}, tmp_path / "trained.pth")
    (tmp_path / "detector.py").write_text(f"default_scope = 'mmengine'\nmodel = {config!r}\n")
    arguments = [str(tmp_path / "detector.py"), str(tmp_path / "trained.pth"), str(tmp_path / "exported")]
    assert main(["export", "timm", *arguments]) == 0

    opened = timm.create_model(f"local-dir:{tmp_path / 'exported'}", pretrained=True, features_only=True).eval()
    image = torch.randn(1, 3, 75, 100, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = model.backbone(image), opened(image)
    assert len(found) == len(expected) == 4
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(expected, found, strict=True))

"""A run begins with weights under others' names, for another window, without a head; a run that goes on does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ALL_MODELS
from tiny_run import tiny_config
from torch import nn
from torch.nn import functional as F
from weights_peers import SIZE, timm_swin

from visionattn.engine.runner import Runner
from visionattn.registry import MODELS
from visionattn.weights.conversion import convert_weights


@ALL_MODELS.register_module()
class SwinWithHead(BaseModel):
    def __init__(self, window: tuple[int, int]) -> None:
        super().__init__()
        options = {"out_indices": (0, 1), "out_norms": False, "image_size": (56, 56), "window": window, **SIZE}
        self.backbone = MODELS.build({"type": "SwinTransformer", **options})
        self.head = nn.Conv2d(32, 2, 1)

    def forward(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError


def _runner(folder: Path, *, window: int = 7, load_strict: bool = False) -> Runner:
    model = {"type": "SwinWithHead", "window": (window, window)}
    runner: Runner = Runner.from_cfg(tiny_config(folder, model=model, load_strict=load_strict))
    return runner


@pytest.fixture
def microsoft(tmp_path: Path) -> Path:
    """A classifier's file."""
    torch.save({"model": convert_weights(timm_swin(7, (56, 56)).state_dict(), "microsoft")}, tmp_path / "swin.pth")
    return tmp_path / "swin.pth"


def test_a_classifiers_weights_begin_a_run(microsoft: Path, tmp_path: Path) -> None:
    source = timm_swin(7, (56, 56))
    runner = _runner(tmp_path / "run", window=5)
    head = runner.model.head.weight.clone()
    runner.load_checkpoint(str(microsoft))
    own = runner.model.backbone.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith(("norm.", "head.")) and not name.endswith("bias_table"):
            assert torch.equal(own[name], value), name
    table = source.layers[0].blocks[0].attn.relative_position_bias_table.detach().t().reshape(1, 2, 13, 13)
    expected = F.interpolate(table, (9, 9), mode="bicubic")[0].flatten(1).t()
    assert torch.equal(own["layers.0.blocks.0.attn.relative_position_bias_table"], expected)
    assert torch.equal(runner.model.head.weight, head)
    log = next((tmp_path / "run").rglob("*.log")).read_text()
    assert "swin.pth: microsoft's names translated; 5 resized (first: backbone.layers.0.blocks.0.attn." in log


def test_what_does_not_fit_is_said_with_the_configs_own_option(microsoft: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"2 missing \(first: head\.weight\), 4 unex.*; load_strict=False in the config"
    ):
        _runner(tmp_path / "run", load_strict=True).load_checkpoint(str(microsoft))


def test_a_run_that_goes_on_takes_its_own_weights_only(microsoft: Path, tmp_path: Path) -> None:
    runner = _runner(tmp_path / "run")
    with pytest.raises(ValueError, match="the weights belong to another model than SwinWithHead: 0 tensors match"):
        runner.resume(str(microsoft))
    torch.save({"state_dict": runner.model.state_dict()}, tmp_path / "own.pth")
    with pytest.raises(ValueError, match=r"5 of another shape .*\[169, 2\], expected \[81, 2\]"):
        _runner(tmp_path / "other", window=5).resume(str(tmp_path / "own.pth"))

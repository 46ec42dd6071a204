"""The code of docs/adding_a_block.md and docs/adding_a_mechanism.md runs as it is written there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import visionattn
import visionattn.segmentation  # what a config's names import must be registered before a test's registries are set up
from visionattn.attention.build import build_attention
from visionattn.registry import ATTENTION, MODELS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guide registers is gone after its test."""
    for registry in (ATTENTION, MODELS):
        registry.import_all()
        monkeypatch.setattr(registry, "_module_dict", dict(registry._module_dict))


def _blocks(guide: str) -> list[str]:
    return [code.split("```")[0] for code in (DOCS / guide).read_text().split("```python\n")[1:]]


def _run(code: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code defines; one that begins with its file's name can be imported by the next."""
    first = code.partition("\n")[0]
    path = first.removeprefix("# ") if first.startswith("# visionattn/") else "guide.py"
    module = ModuleType(path.removesuffix(".py").replace("/", "."))
    if first.startswith("# visionattn/"):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, path, "exec"), module.__dict__)
    return module.__dict__


def test_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    gated, config, insertion = _blocks("adding_a_block.md")
    plugin = _run(gated, monkeypatch)["GatedPlugin"]
    backbone = MODELS.build({**_run(config, monkeypatch)["backbone"], "base_channels": 4})
    assert sum(isinstance(part, plugin) for part in backbone.modules()) == 6 + 3  # of ResNet-50's last two stages
    assert [list(stage.shape[2:]) for stage in backbone(torch.rand(1, 3, 37, 53))][-1] == [2, 2]
    block, x = plugin(8, "EfficientAttention"), torch.rand(2, 8, 5, 7)
    gate = block.mixer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), x / (1 + torch.exp(-gate)))
    _run(insertion, monkeypatch)


def test_a_mechanism(monkeypatch: pytest.MonkeyPatch) -> None:
    for code in _blocks("adding_a_mechanism.md"):
        _run(code, monkeypatch)
    assert "MeanAttention" in visionattn.list_attention()
    mixer = build_attention("MeanAttention", dim=16)
    x, mask = torch.rand(2, 3, 5, 16), torch.rand(2, 3, 5) > 0.4
    values = mixer.qkv(x)[..., 32:]
    for real in (None, mask):
        y = mixer(x, mask=real)
        for item in range(2):
            kept = values[item].reshape(15, 16)[slice(None) if real is None else real[item].reshape(15)]
            torch.testing.assert_close(y[item, 1, 2], mixer.proj(sum(kept) / len(kept)))

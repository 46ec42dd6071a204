"""From a stereo checkpoint to timm: the backbone that a network matches with leaves with its weights, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from mmengine.registry import DefaultScope
from tiny_stereo import write_stereo
from torch import nn

from visionattn.cli.main import main
from visionattn.engine.config import import_scope, load_config
from visionattn.registry import MODELS
from visionattn.weights.loading import load_checkpoint

_BACKBONE = """dict(
            type="visionattn.TimmBackbone",
            model_name="resnet18",
            out_indices={maps},
            attention={{{last}: dict(type="EfficientAttention")}},
            timm_options=dict(channels=(8, 8, 16, 16), zero_init_last=False),
        )"""
_NETWORKS = {
    "CompactStereo": ("backbone", (1, 2), "max_disparity=16, channels=8, groups=4, volume_channels=4,"),
    "PSMNet": ("backbone", (1, 2), "max_disparity=16,"),
    "GMStereo": ("features", (2, 3), "channels=16, layers=1,"),
}


def write_config(folder: Path, name: str) -> Path:
    """A config that trains the network on the pairs of `tiny_stereo`."""
    write_stereo(folder)
    place, maps, options = _NETWORKS[name]
    backbone = _BACKBONE.format(maps=maps, last=maps[-1])
    config = folder / "small.py"
    config.write_text(f"""
_base_ = ["./red.py"]
model = dict(
    network=dict(
        _delete_=True,
        type="visionattn.{name}",
        {options}
        {place}={backbone},
    ),
    loss=dict(_delete_=True, type="SequenceL1Loss"),
)
optim_wrapper = dict(optimizer=dict(lr=0.01))
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
custom_hooks = []
""")
    return config


def build(config: Path) -> nn.Module:
    loaded = load_config(config)
    import_scope(loaded)
    with DefaultScope.overwrite_default_scope("visionattn"):
        model: nn.Module = MODELS.build(loaded.model)
    return model


@pytest.mark.parametrize("name", _NETWORKS)
def test_a_trained_stereo_backbone_is_the_same_in_timm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path, name)
    assert main(["train", "small.py", "--work-dir", "run"]) == 0
    assert main(["export", "timm", "small.py", "run/iter_2.pth", "exported"]) == 0
    assert "create_model" in capsys.readouterr().out

    model = build(config)
    begun = {key: value.clone() for key, value in model.state_dict().items()}
    load_checkpoint(model, "run/iter_2.pth")
    place = "backbone" if name == "GMStereo" else "feature_extraction" if name == "PSMNet" else "features"
    body = getattr(model.network, place).body.eval()
    first = next(key for key in begun if key.endswith("conv1.weight"))
    assert not torch.equal(model.state_dict()[first], begun[first])

    in_timm = timm.create_model("local-dir:exported", pretrained=True, features_only=True).eval()
    image = torch.rand(1, 3, 48, 75, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, found = body(image), in_timm(image)
    assert len(wanted) == len(found) == len(_NETWORKS[name][1])
    for ours, theirs in zip(wanted, found, strict=True):
        assert ours.std() > 0
        assert torch.equal(ours, theirs)

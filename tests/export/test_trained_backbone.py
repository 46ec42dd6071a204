"""From made-up ADE20K to timm: a config trains and resumes through the CLI, and timm opens its backbone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from visionattn.cli.main import main
from visionattn.engine.config import import_scope, load_config
from visionattn.registry import MODELS
from visionattn.weights.loading import load_checkpoint

_BASE = Path(__file__).parents[2] / "configs/segmentation/upernet_visionattn-swin-t_8xb2-160k_ade20k-512x512.py"
_NARROW = f"""
_base_ = [{str(_BASE)!r}]
crop_size = (64, 64)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(embed_dim=16, depths=[1, 2, 2, 1], num_heads=[1, 2, 2, 4]),
    decode_head=dict(in_channels=[16, 32, 64, 128], channels=16),
    auxiliary_head=dict(in_channels=64, channels=8),
)
crop = dict(type="ScaledCrop", scale=(256, 64), ratio_range=(0.5, 2.0), crop_size=crop_size, cat_max_ratio=0.75)
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        pipeline=[
            dict(type="visionattn.LoadImage"),
            dict(type="visionattn.LoadLabels"),
            dict(type="visionattn.Albumentations", transforms=[crop, dict(type="HorizontalFlip", p=0.5)]),
            dict(type="mmseg.PackSegInputs"),
        ]
    ),
)
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
custom_hooks = []
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2, save_best=None), logger=dict(interval=1))
"""
_IN_TIMM = """
import sys, timm, torch
import visionattn.export.timm
image, out, folder = torch.load(sys.argv[1]), sys.argv[2], sys.argv[3]
model = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True).eval()
with torch.no_grad():
    torch.save(model(image), out)
"""


@pytest.mark.slow
def test_a_trained_backbone_is_the_same_in_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "narrow.py"
    config.write_text(_NARROW)
    assert main(["data", "synth", "ade20k", "ade", "--train", "6", "--val", "2", "--size", "80"]) == 0
    train = ["train", "narrow.py", "--work-dir", "run", "--cfg-options", "data_root=ade"]
    assert main([*train, "train_cfg.max_iters=2"]) == 0
    begun = torch.load("run/iter_2.pth", weights_only=True)["state_dict"]
    assert main([*train, "train_cfg.max_iters=4", "--resume"]) == 0
    state = torch.load("run/iter_4.pth", weights_only=True)["state_dict"]
    assert not torch.equal(state["backbone.patch_embed.proj.weight"], begun["backbone.patch_embed.proj.weight"])

    assert main(["export", "timm", "narrow.py", "run/iter_4.pth", "swin"]) == 0

    loaded = load_config(config)
    import_scope(loaded)
    with DefaultScope.overwrite_default_scope("mmseg"):
        segmentor = MODELS.build(loaded.model).eval()
    load_checkpoint(segmentor, "run/iter_4.pth")
    image = torch.rand(1, 3, 75, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = segmentor.backbone(image)
    torch.save(image, "image.pt")
    subprocess.run([sys.executable, "-c", _IN_TIMM, "image.pt", "maps.pt", "swin"], check=True)
    maps = torch.load("maps.pt")
    assert [list(m.shape[1:]) for m in maps] == [[16, 19, 25], [32, 10, 13], [64, 5, 7], [128, 3, 4]]
    assert all(torch.equal(one, two) for one, two in zip(maps, expected, strict=True))

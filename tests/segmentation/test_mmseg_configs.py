"""Configs that OneDL mmsegmentation ships, trained with our plug-in and our backbone by a config of a few lines.

On made-up ADE20K, with small images and widths by options; everything else is mmseg's: data set, pipeline, heads,
losses, metric, schedule.
"""

from __future__ import annotations

import json

import pytest
import torch
from mmseg.models import ResNetV1c

from visionattn.blocks.plugin import AttentionPlugin
from visionattn.cli.main import main
from visionattn.engine.config import load_config
from visionattn.registry import MODELS

# The text of docs/segmentation.md.
PLUGIN = """
_base_ = ["mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py"]
attention = dict(type="visionattn.AttentionPlugin", attention=dict(type="EfficientAttention"))
model = dict(
    pretrained=None,
    backbone=dict(plugins=[dict(cfg=attention, stages=(False, False, True, True), position="after_conv3")]),
)
"""
BACKBONE = """
_base_ = ["mmseg::upernet/upernet_r18_4xb4-80k_ade20k-512x512.py"]
model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="visionattn.TimmBackbone",
        model_name="resnet18",
        attention=[None, None, dict(type="EfficientAttention"), dict(type="EfficientAttention")],
    ),
)
"""
SMALL = [
    "train_dataloader.dataset.pipeline.2.scale=(128,64)",
    "train_dataloader.dataset.pipeline.3.crop_size=(64,64)",
    "test_dataloader.dataset.pipeline.1.scale=(128,64)",
    "val_dataloader.dataset.pipeline.1.scale=(128,64)",
    "model.data_preprocessor.size=(64,64)",
    "model.decode_head.channels=16",
    "model.auxiliary_head.channels=16",
    "train_dataloader.batch_size=2",
    *(f"{split}_dataloader.num_workers=0" for split in ("train", "val", "test")),
    *(f"{split}_dataloader.persistent_workers=False" for split in ("train", "val", "test")),
    "train_cfg.max_iters=3",
    "train_cfg.val_interval=3",
    "default_hooks.logger.interval=1",
    "default_hooks.checkpoint.interval=3",
]
NARROW = {
    PLUGIN: [
        "model.backbone.base_channels=4",
        "model.decode_head.in_channels=128",
        "model.auxiliary_head.in_channels=64",
    ],
    BACKBONE: [
        "model.backbone.timm_options.channels=(8,8,8,8)",
        "model.decode_head.in_channels=(8,8,8,8)",
        "model.auxiliary_head.in_channels=8",
    ],
}


def plugins_in(model):
    return {name for name, module in model.named_modules() if isinstance(module, AttentionPlugin)}


@pytest.mark.parametrize("text", [PLUGIN, BACKBONE], ids=["plugin in pspnet", "backbone in upernet"])
def test_trains_validates_and_tests(text, tree, tmp_path):
    config = tmp_path / "own.py"
    config.write_text(text)
    # mmengine hands out one visualizer, and its folder, to all runs of a process that name it alike.
    data = [f"data_root={tree}", f"visualizer.name={tmp_path.name}"]
    options = ["--work-dir", str(tmp_path / "run"), "--cfg-options", *data, *SMALL, *NARROW[text]]
    assert main(["train", str(config), *options]) == 0
    scalars = min((tmp_path / "run").glob("*/vis_data/scalars.json"))
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    assert all(0 < line["loss"] < 100 for line in lines if "loss" in line)
    assert any("mIoU" in line for line in lines)
    state = torch.load(tmp_path / "run" / "iter_3.pth", weights_only=True)["state_dict"]
    attention = [value for name, value in state.items() if name.endswith("attention_plugin.gamma")]
    assert attention
    assert any(value.any() for value in attention), "they have learned"
    more = ["--tta"] if text is BACKBONE else []  # mmseg's configs name their own augmentation
    assert main(["test", str(config), str(tmp_path / "run" / "iter_3.pth"), *more, *options]) == 0


def test_only_the_named_lines_differ(tmp_path):
    """The plug-in adds itself; all that mmseg says otherwise stands."""
    for name, text in (("with", PLUGIN), ("without", PLUGIN.splitlines()[1] + "\nmodel = dict(pretrained=None)\n")):
        (tmp_path / f"{name}.py").write_text(text)
    ours, theirs = (load_config(tmp_path / f"{name}.py") for name in ("with", "without"))
    ours.pop("attention")
    ours.model.backbone.pop("plugins")
    assert ours.to_dict() == theirs.to_dict()


def test_two_at_one_position_keep_only_the_last_in_mmseg():
    """As the docs say: every plug-in of a position gets the same map; different positions, or InsertedBackbone."""
    plugins = [
        {
            "cfg": {"type": "visionattn.AttentionPlugin", "attention": {"type": kind}, "postfix": f"_{kind}"},
            "position": "after_conv3",
        }
        for kind in ("EfficientAttention", "NonLocal")
    ]
    host = MODELS.build({"type": "mmseg.ResNetV1c", "depth": 50, "base_channels": 4, "plugins": plugins})
    host.eval()  # returns nothing
    assert isinstance(host, ResNetV1c)
    image = torch.randn(1, 3, 64, 64)
    before = host(image)[-1]
    for name, module in host.named_modules():
        if isinstance(module, AttentionPlugin) and "Efficient" in name:
            torch.nn.init.ones_(module.gamma)
    assert torch.equal(host(image)[-1], before), "the first answer is dropped"

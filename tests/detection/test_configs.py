"""Every detection config: its model learns and predicts from what its pipelines make of a made-up image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope

from visionattn.attention.base import TokenMixer
from visionattn.attention.efficient import EfficientAttention
from visionattn.backbones.efficient_attention_places import efficient_attention_places
from visionattn.engine.config import load_config
from visionattn.engine.config_check import refuse_unknown
from visionattn.registry import DATASETS, MODELS

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = [*sorted(CONFIGS.glob("detection/*.py")), CONFIGS / "quickstart/detection.py"]
COCO = [path for path in FILES if path.stem.endswith("_coco")]


def raw_image(masks: bool) -> dict[str, Any]:
    """What a data set hands to its pipeline: two objects and a crowd."""
    rng = np.random.default_rng(0)
    boxes = np.array([[5, 6, 60, 50], [40, 20, 110, 75], [0, 0, 30, 30]], np.float32)
    raw = {
        "image": rng.integers(0, 256, (80, 120, 3), np.uint8),
        "boxes": boxes,
        "labels": np.array([0, 2, 1]),
        "crowd": np.array([False, False, True]),
        "image_id": 1,
        "file": "one.jpg",
        "ori_shape": (80, 120),
    }
    if masks:
        raw["masks"] = np.zeros((3, 80, 120), np.uint8)
        for mask, (left, top, right, bottom) in zip(raw["masks"], boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = 1
    return raw


def leaf(dataset: Any) -> Any:
    """What a wrapper such as ClassBalancedDataset holds."""
    return leaf(dataset.dataset) if "dataset" in dataset else dataset


def shrunk(config: Config) -> Config:
    """The config with a small input and narrow layers: its recipe's own would cost minutes."""
    for split in ("train", "val", "test"):
        for step in leaf(config[f"{split}_dataloader"].dataset).pipeline:
            for transform in step.get("transforms", ()):
                if "scales" in transform:
                    transform["scales"] = [(max(96, long // 12), short // 12) for long, short in transform["scales"]]
    backbone, head = config.model.backbone, config.model.head
    head.num_classes = min(head.num_classes, 80)
    if backbone.type.endswith("TimmBackbone"):
        backbone.timm_options = {"layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16)}
    else:
        backbone.embed_dim, backbone.depths, backbone.num_heads = 16, (1, 1, 1, 1), (1, 1, 2, 2)
    config.model.neck.out_channels = 64  # group norms of 32 groups take no map of one cell and as many channels
    if head.type.endswith("RCNNHead"):
        head.rpn, head.box = {"post_nms": (40, 40)}, {"width": 32, "min_score": 0.0, "detections": 100}
        if head.get("mask") is not None:
            head.mask = {"convs": (16,), "width": 16}
    return config


def test_files_were_found() -> None:
    assert len(COCO) >= 10


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_model_runs_on_what_the_pipelines_make(path: Path) -> None:
    config = load_config(path)
    refuse_unknown(config)
    config = shrunk(config)
    masks = config.model.head.get("mask") is not None
    assert leaf(config.train_dataloader.dataset).get("with_masks", False) == masks
    assert ("segm" in config.val_evaluator.iou_types) == masks
    assert config.default_scope == "mmengine"
    with DefaultScope.overwrite_default_scope(config.default_scope):
        assert DATASETS.get(config.train_dataloader.dataset.type) is not None
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        packed = [Compose(leaf(config.train_dataloader.dataset).pipeline)(raw_image(masks)) for _ in range(2)]
        data = {key: [item[key] for item in packed] for key in packed[0]}
        losses = model(**model.data_preprocessor(data, training=True), mode="loss")
        assert set(losses) == set(model.head.loss_names)
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()
        assert not [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]

        item = Compose(config.test_dataloader.dataset.pipeline)(raw_image(masks))
        (sample,) = model.eval().test_step({key: [value] for key, value in item.items()})
    if masks:
        assert sample.predicted.masks.shape[1:] == (80, 120)
    assert sample.predicted.boxes.shape == (len(sample.predicted), 4)


@pytest.mark.parametrize("path", COCO, ids=lambda path: path.stem)
def test_published_recipes(path: Path) -> None:
    """Eight processes of two images; the schedule that the name says; 80 classes."""
    config = load_config(path)
    processes, batch = (int(n) for n in path.stem.split("_")[-2].partition("-")[0].split("xb"))
    assert processes * config.train_dataloader.batch_size == processes * batch == 16
    epochs = config.train_cfg.max_iters * 16 / 117266  # images with objects in train2017
    assert (11.5 if "-1x_" in path.stem else 35.5) < epochs < (12.5 if "-1x_" in path.stem else 37.5)
    assert config.model.head.num_classes == 80
    assert config.train_cfg.max_iters % config.default_hooks.checkpoint.interval == 0


def test_the_recipe_on_lvis() -> None:
    """As detectron2's LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x."""
    config = load_config("detection/mask_rcnn_r50-fpn_8xb2-180k_lvis-v1")
    assert (config.model.head.num_classes, config.model.head.box) == (1203, {"min_score": 1e-4, "detections": 300})
    assert (config.train_dataloader.dataset.type, config.train_dataloader.dataset.oversample_thr) == (
        "ClassBalancedDataset", 1e-3,
    )  # fmt: skip
    assert (config.train_cfg.max_iters, config.param_scheduler[1].milestones) == (180000, [120000, 160000])
    assert config.val_evaluator.type == config.test_evaluator.type == "visionattn.LvisMetric"
    assert config.default_hooks.checkpoint.save_best == "lvis/segm_AP"
    plain = load_config("detection/mask_rcnn_r50-fpn_8xb2-1x_coco")
    assert leaf(config.train_dataloader.dataset).pipeline == plain.train_dataloader.dataset.pipeline
    assert config.optim_wrapper == plain.optim_wrapper


def test_swins_weights_are_decayed_but_for_those_it_names() -> None:
    config = load_config("detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco")
    keys = config.optim_wrapper.paramwise_cfg.custom_keys
    model = MODELS.build(shrunk(config).model)
    named = [name for name, _ in model.named_parameters() if any(key in name for key in keys)]
    assert any("relative_position_bias_table" in name for name in named)
    assert any("norm" in name for name in named)
    assert not any(name.startswith(("head", "neck")) for name in named)


@pytest.mark.parametrize("modules", [1, 5, 7])
def test_efficient_attention_is_all_that_differs(modules: int) -> None:
    name = "detection/mask_rcnn_r50-fpn{}_8xb2-1x_coco"
    plain, ours = load_config(name.format("")), load_config(name.format(f"-efficient-x{modules}"))
    places = efficient_attention_places(modules)
    stages = ours.model.backbone.pop("attention")
    levels = ours.model.neck.pop("attention", [])
    assert set(stages) == set(places["backbone"])
    assert {level for level, cfg in enumerate(levels) if cfg is not None} == set(places["neck"])
    assert ours.model.to_dict() == plain.model.to_dict()
    for part in ("train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg", "val_evaluator"):
        assert ours[part] == plain[part]
    model = MODELS.build(shrunk(load_config(name.format(f"-efficient-x{modules}"))).model)
    assert sum(isinstance(module, TokenMixer) for module in model.modules()) == modules


@pytest.mark.parametrize(("twin", "modules"), [("r18", 5), ("swin-t", 3)])
def test_blood_cell_twins_differ_in_their_attention_alone(twin: str, modules: int) -> None:
    plain = load_config(f"detection/faster_rcnn_{twin}-fpn_bccd")
    ours = load_config(f"detection/faster_rcnn_{twin}-fpn-efficient_bccd")
    assert plain.model.head.num_classes == 3
    assert plain.model.backbone.get("frozen_stages", -1) == -1
    model = MODELS.build(shrunk(load_config(ours.filename)).model)
    assert sum(isinstance(m, EfficientAttention) for m in model.modules()) == modules
    ours.model.backbone.pop("attention", None)
    ours.model.neck.pop("attention")
    for name in ("level", "stages"):
        ours.pop(name, None)
    assert ours.to_dict() == plain.to_dict()


def test_stages_frozen_without_weights_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    MMLogger.get_instance("frozen", logger_name="frozen").addHandler(caplog.handler)
    model = shrunk(load_config("detection/faster_rcnn_r50-fpn_8xb2-1x_coco")).model
    MODELS.build(model)
    assert "frozen_stages=1, and the backbone has no checkpoint" in caplog.text
    caplog.clear()
    model.backbone.frozen_stages = -1
    MODELS.build(model)
    assert "frozen_stages" not in caplog.text

"""Every config file of the tree: it loads, its parts can be built, its model runs forward, backward and as it predicts.

Nothing here reads a dataset: where one lies is the user's affair (its pipeline is built and run on a made-up pair).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from visionattn.engine.config import load_config
from visionattn.registry import DATASETS, HOOKS, METRICS, MODELS, RUNNERS

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.rglob("*.py") if not any(part.startswith("_") for part in path.parts))
SIZE = (65, 97)


def name_of(path):
    return path.relative_to(CONFIGS).with_suffix("").as_posix()


OTHER_TASKS = ("detection/", "quickstart/detection", "stereo/", "quickstart/stereo")
"""Their models and pipelines are built in tests/detection/test_configs.py and in tests/stereo."""


def segmentation_configs():
    """All but those of other tasks."""
    return [pytest.param(path, id=name_of(path)) for path in FILES if not name_of(path).startswith(OTHER_TASKS)]


def test_files_were_found():
    names = [name_of(path) for path in FILES]
    assert {"quickstart/segmentation", "segmentation/upernet_r18-efficient_camvid"} <= set(names)
    assert len(segmentation_configs()) >= 12
    bases = list((CONFIGS / "_base_").rglob("*.py"))
    assert {path.parent.name for path in bases} == {"models", "datasets", "schedules", "runtime", "stereo_pipelines"}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_header_says_the_command_and_bases_are_relative(path):
    text = path.read_text()
    assert f"visionattn train {name_of(path)}" in text
    assert not any(line.strip().strip("[]',\" ").startswith("/") for line in text.splitlines())
    config = load_config(name_of(path))
    assert Path(config.filename).resolve() == path
    assert config.runner_type == "visionattn.Runner"
    assert "work_dir" not in config  # the command names it after the config


@pytest.fixture
def pair(tmp_path):
    """An image with a mask of every class and of 255, in files."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "image.png"), rng.integers(0, 256, (*SIZE, 3), np.uint8))

    def write(classes, reduce_zero_label):
        numbers = np.append(np.arange(classes) + reduce_zero_label, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "mask.png"), rng.choice(numbers, SIZE))
        return {
            "img_path": str(tmp_path / "image.png"),
            "seg_map_path": str(tmp_path / "mask.png"),
            "num_classes": classes,
            "reduce_zero_label": reduce_zero_label,
        }

    return write


def shrunk(config):
    """The config with images of SIZE, narrow heads and a shallow Swin: its recipe's own would cost minutes."""
    for split in ("train", "val", "test"):
        for step in steps(config[f"{split}_dataloader"].dataset.pipeline):
            if "scale" in step:  # long and short side, as mmseg's Resize has it
                step["scale"] = (max(SIZE), min(SIZE))
            if "crop_size" in step:
                step["crop_size"] = SIZE
    if config.model.data_preprocessor.get("size"):
        config.model.data_preprocessor.size = SIZE
    if "depths" in config.model.backbone:
        config.model.backbone.depths = [2, 2, 2, 2]
    for head in (config.model.decode_head.get("head", config.model.decode_head), config.model.get("auxiliary_head")):
        if head:
            head.channels = min(head.channels, 64)
    return config


def steps(pipeline):
    for step in pipeline:
        yield step
        yield from steps(step.get("transforms", ()))


@pytest.mark.parametrize("path", segmentation_configs())
def test_model_runs_on_what_the_pipelines_make(path, pair):
    config = shrunk(load_config(path))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        dataset = DATASETS.get(config.train_dataloader.dataset.type)
        classes = dataset.METAINFO["classes"]
        model = MODELS.build(config.model)
        info = pair(len(classes), dataset.LAYOUT.reduce_zero_label)

        packed = {}
        for split in ("train", "val", "test"):
            packed[split] = Compose(config[f"{split}_dataloader"].dataset.pipeline)(dict(info))
            labels = packed[split]["data_samples"].gt_sem_seg.data.unique().tolist()
            assert set(labels) <= {*range(len(classes)), 255}
            assert packed[split]["data_samples"].gt_sem_seg.shape == (
                packed[split]["inputs"].shape[1:] if split == "train" else SIZE  # predictions are brought back to it
            )

        # A small crop of the training sample: the recipe's own size would cost seconds.
        batch = [Compose(config.train_dataloader.dataset.pipeline)(dict(info)) for _ in range(2)]
        for item in batch:
            item["inputs"] = item["inputs"][:, : SIZE[0], : SIZE[1]].contiguous()
            item["data_samples"].gt_sem_seg = item["data_samples"].gt_sem_seg[: SIZE[0], : SIZE[1]]
        data = model.data_preprocessor(
            {"inputs": [i["inputs"] for i in batch], "data_samples": [i["data_samples"] for i in batch]}, training=True
        )
        losses = model(**data, mode="loss")
        total = sum(value for name, value in losses.items() if "loss" in name)
        assert torch.isfinite(total)
        total.backward()
        unused = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not unused

        model.eval()
        (sample,) = model.test_step(
            {"inputs": [packed["test"]["inputs"]], "data_samples": [packed["test"]["data_samples"]]}
        )
        assert sample.pred_sem_seg.shape == SIZE
        assert sample.seg_logits.shape == SIZE
        assert sample.seg_logits.data.shape[0] == len(classes)


@pytest.mark.parametrize("path", segmentation_configs())
def test_losses_average_over_what_is_not_ignored(path):
    found = []

    def walk(node):
        if isinstance(node, dict):
            kind = str(node.get("type", ""))
            if kind.endswith("CrossEntropyLoss"):
                found.append(kind.startswith("visionattn.") or node.get("avg_non_ignore"))
            for value in node.values():
                walk(value)
        elif isinstance(node, list | tuple):
            for value in node:
                walk(value)

    walk(load_config(path).model)
    assert found
    assert all(found)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_other_part_is_known(path):
    config = load_config(path)
    with DefaultScope.overwrite_default_scope(config.default_scope):
        assert RUNNERS.get(config.runner_type) is not None
        for hook in config.custom_hooks:
            HOOKS.build(hook)
        for part in ("val_evaluator", "test_evaluator"):
            for metric in config[part] if isinstance(config[part], list) else [config[part]]:
                METRICS.build(metric)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_schedule_ends_where_the_training_ends(path):
    config = load_config(path)
    last = config.param_scheduler[-1]
    assert config.train_cfg.max_iters == last.get("end", last.get("total_steps"))
    assert config.train_cfg.max_iters % config.train_cfg.val_interval == 0


def test_data_root_reaches_every_dataset():
    for path in FILES:
        config = load_config(path, {"data_root": "/elsewhere"})
        for split in ("train", "val", "test"):
            dataset = config[f"{split}_dataloader"].dataset
            while "dataset" in dataset:
                dataset = dataset.dataset
            assert dataset.type.endswith("MadeUpStereo") or dataset.data_root == "/elsewhere"


def test_published_recipes_are_there():
    """The eight of ADE20K, and one with our Swin; their schedules and batches are the published ones."""
    published = {name_of(path): load_config(path) for path in FILES if "ade20k-512x512" in path.name}
    assert len(published) == 9
    for name, config in published.items():
        processes, batch = (int(n) for n in name.split("_")[2].partition("-")[0].split("xb"))
        assert processes * config.train_dataloader.batch_size == batch * processes == 16
        assert config.train_cfg.max_iters == 160000
        assert config.model.decode_head.get("head", config.model.decode_head).num_classes == 150


def test_efficient_head_differs_from_the_non_local_one_in_its_attention_alone():
    name = "segmentation/fcn_r50d8-{}-head_4xb4-160k_ade20k-512x512"
    plain, attention = load_config(name.format("nonlocal")), load_config(name.format("efficient"))
    theirs, ours = plain.model.pop("decode_head"), attention.model.pop("decode_head")
    assert plain.to_dict() == attention.to_dict()
    inner = ours.attention
    assert inner == {"type": "EfficientAttention", "key_dim": 256, "value_dim": 256}
    assert {theirs.pop(key) for key in ("type", "mode", "reduction", "use_scale")} >= {"mmseg.NLHead", 2}
    assert {**theirs.to_dict(), "type": "mmseg.FCNHead", "num_convs": 2} == ours.head.to_dict()


def test_twin_differs_in_its_attention_alone():
    attention = load_config("segmentation/upernet_r18-efficient_camvid")
    plain = load_config("segmentation/upernet_r18_camvid")
    assert len(attention.model.backbone.pop("attention")) == 4
    assert attention.to_dict() == plain.to_dict()

"""A stereo model whose disparity is known in advance, its data and a config: red is the disparity, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset

from visionattn.registry import DATASETS, MODELS

SIZE = (30, 52)

_CONFIG = """
default_scope = "visionattn"
custom_imports = dict(imports=["tiny_stereo"])
model = dict(
    type="StereoMatcher",
    network=dict(type="RedAsDisparity"),
    loss=dict(type="WeightedSmoothL1Loss", weights=(1.0,)),
    data_preprocessor=dict(type="StereoPreprocessor", mean=[0.0] * 3, std=[1.0] * 3),
)
dataset = dict(type="TinyPairs", number={number}, known={known}, transforms=[dict(type="PackStereo")])
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dataset)
val_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="DisparityMetric")
train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.0))
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
)
custom_hooks = [dict(type="DisparityPictureHook", number=2)]
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


@MODELS.register_module(force=True)
class RedAsDisparity(nn.Module):
    """The red of the left view, half of it until the weight is 1."""

    divisor, smallest = 16, 32

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, left: Tensor, right: Tensor) -> list[Tensor]:
        assert left.shape == right.shape
        return [self.weight * left[:, 0]]


@DATASETS.register_module(force=True)
class TinyPairs(Dataset[Any]):
    """Pairs of `tiny_pair`."""

    def __init__(self, number: int = 5, known: bool = True, transforms: Sequence[Any] = ()) -> None:
        self.number, self.known = number, known
        self.pipeline = Compose(list(transforms))
        self.metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Any:
        return self.pipeline(tiny_pair(index, self.known))


def tiny_pair(index: int, known: bool = True) -> dict[str, Any]:
    """A raw sample: a textured wall at 2 to 8 pixels; red is the disparity, the right view moved by it."""
    random = np.random.default_rng(index)
    disparity = 2 + index % 7
    texture = random.integers(0, 256, (SIZE[0], SIZE[1] + disparity, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 1.0)
    texture[..., 0] = disparity
    left, right = (np.ascontiguousarray(view) for view in (texture[:, :-disparity], texture[:, disparity:]))
    right[..., 0] = 100  # red tells the two apart
    raw = {"left": left, "right": right, "name": f"{index:06d}_10"}
    if known:
        truth = np.full(SIZE, disparity, np.float32)
        raw |= {"disparity": truth, "valid": random.random(SIZE) < 0.9}
    return raw


def write_stereo(folder: Path, number: int = 5, known: bool = True) -> tuple[Path, Path]:
    """(config, checkpoint) in `folder`; images of the pairs lie in left/ and right/ beside them."""
    config, checkpoint = folder / "red.py", folder / "weights.pth"
    config.write_text(_CONFIG.format(number=number, known=known))
    torch.save({"state_dict": {"network.weight": torch.tensor(1.0)}}, checkpoint)
    for index in range(number):
        pair = tiny_pair(index)
        for side in ("left", "right"):
            path = folder / side / f"{pair['name']}.png"
            path.parent.mkdir(exist_ok=True)
            assert cv2.imwrite(str(path), pair[side][..., ::-1])
    return config, checkpoint

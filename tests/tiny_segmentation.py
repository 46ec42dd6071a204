"""A segmentor that trains in a second on a handful of pictures: bands of three brightnesses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIZE = (37, 53)

_CONFIG = """
default_scope = "mmseg"
data_root = {root!r}
norm_cfg = dict(type="BN")
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[127.0] * 3, std=[60.0] * 3, size_divisor=1),
    backbone=dict(type="ResNet", depth=18, base_channels=4, num_stages=2, strides=(1, 2), dilations=(1, 1),
                  out_indices=(0, 1), norm_cfg=norm_cfg),
    decode_head=dict(type="FCNHead", in_channels=8, in_index=1, channels=4, num_convs=1, concat_input=False,
                     num_classes=3, norm_cfg=norm_cfg, loss_decode=dict(type="CrossEntropyLoss", avg_non_ignore=True)),
    test_cfg=dict(mode="whole"),
)
pipeline = [dict(type="visionattn.LoadImage"), dict(type="visionattn.LoadLabels"), dict(type="PackSegInputs")]
dataset = dict(type="visionattn.ImageMaskFolder", data_root=data_root, classes=("dark", "middle", "bright"),
               palette=[[0, 0, 160], [0, 160, 0], [250, 220, 60]], image_suffix=".png", pipeline=pipeline)
train_dataloader = dict(batch_size=3, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dataset)
val_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="visionattn.IoUMetric")
train_cfg = dict(type="IterBasedTrainLoop", max_iters=30, val_interval=30)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.02))
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=10, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=30),
)
custom_hooks = [dict(type="visionattn.PictureHook", number=2)]
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


def write_segmentation(folder: Path, images: int = 5) -> Path:
    """A config file in `folder` with its data beside it: a dark, a middle, and a bright band under noise."""
    random = np.random.default_rng(0)
    for number in range(images):
        mask = np.zeros(SIZE, np.uint8)
        for border in random.integers(10, SIZE[1] - 10, 2):
            mask[:, border:] += 1
        image = np.clip(40 + 80 * mask[..., None] + random.normal(0, 20, (*SIZE, 3)), 0, 255).astype(np.uint8)
        for kind, pixels in (("images", image), ("masks", mask)):
            path = folder / "data" / kind / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), pixels)
    config = folder / "bands.py"
    config.write_text(_CONFIG.format(root=str(folder / "data")))
    return config

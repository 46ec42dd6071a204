"""A stereo network that trains in a second on a handful of pairs: two bands of noise at two depths."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from visionattn.data.pfm import write_pfm

SIZE = (37, 53)

_CONFIG = """
default_scope = "mmengine"
model = dict(
    type="visionattn.StereoMatcher",
    network=dict(
        type="visionattn.CompactStereo",
        backbone=dict(type="visionattn.TimmBackbone", model_name="resnet18", out_indices=(1, 2),
                      timm_options=dict(channels=(8, 8, 8, 8), layers=(1, 1, 1, 1), zero_init_last=False)),
        max_disparity=16, channels=8, groups=4, volume_channels=4, attention=dict(cost="EfficientAttention"),
    ),
    loss=dict(type="visionattn.WeightedSmoothL1Loss", weights=(0.5, 1.0), max_disparity=16),
)
dataset = dict(type="visionattn.PairList", ann_file="pairs.txt", data_root={root!r},
               transforms=[dict(type="visionattn.PackStereo")])
train_dataloader = dict(batch_size=3, num_workers=0, sampler=dict(type="InfiniteSampler"), dataset=dataset)
val_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="DefaultSampler", shuffle=False), dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type="visionattn.DisparityMetric")
train_cfg = dict(type="IterBasedTrainLoop", max_iters=6, val_interval=3)
val_cfg = test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=0.01))
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=3, save_best="visionattn/EPE", rule="less"),
)
custom_hooks = [dict(type="visionattn.DisparityPictureHook", number=2), dict(type="visionattn.ConstantBaselineHook")]
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""


def write_stereo(folder: Path, pairs: int = 5) -> Path:
    """A config file in `folder` with its data beside it: noise, whose lower band is nearer by some pixels."""
    random = np.random.default_rng(0)
    (folder / "data").mkdir(parents=True)
    lines = []
    for number in range(pairs):
        disparity = np.zeros(SIZE, np.float32)
        disparity[:20], disparity[20:] = sorted(random.integers(2, 14, 2))
        left = cv2.resize(random.integers(0, 256, (SIZE[0], SIZE[1] // 2, 3), np.uint8), SIZE[::-1])
        right = random.integers(0, 256, (*SIZE, 3), np.uint8)
        for row, shift in enumerate(disparity[:, 0].astype(int)):
            right[row, : SIZE[1] - shift] = left[row, shift:]
        names = [f"{number}_{kind}" for kind in ("left.png", "right.png", "disparity.pfm")]
        assert cv2.imwrite(str(folder / "data" / names[0]), left)
        assert cv2.imwrite(str(folder / "data" / names[1]), right)
        write_pfm(folder / "data" / names[2], disparity)
        lines.append(" ".join(names))
    (folder / "data" / "pairs.txt").write_text("\n".join(lines) + "\n")
    config = folder / "bands.py"
    config.write_text(_CONFIG.format(root=str(folder / "data")))
    return config

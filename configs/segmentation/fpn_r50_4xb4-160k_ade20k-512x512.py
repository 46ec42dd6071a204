"""Semantic FPN, ResNet-50 at stride 32, ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch \
        segmentation/fpn_r50_4xb4-160k_ade20k-512x512
    visionattn train segmentation/fpn_r50_4xb4-160k_ade20k-512x512
    visionattn test segmentation/fpn_r50_4xb4-160k_ade20k-512x512 CHECKPOINT [--tta]

Published: mIoU 37.49 single scale, 39.09 with --tta's scales and flip (OneDL mmseg 1.4.2's metafile),
4 GPUs with 4 images each. Not run here.
Weights: resnet50_v1c ("open-mmlab://resnet50_v1c") as OneDL mmseg's configs/sem_fpn names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = [
    "../_base_/models/r50d8.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(
    backbone=dict(dilations=(1, 1, 1, 1), strides=(1, 2, 2, 2)),
    neck=dict(type="mmseg.FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
    decode_head=dict(
        type="mmseg.FPNHead",
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
        num_classes=150,
    ),
    auxiliary_head=None,
)
default_hooks = dict(checkpoint=dict(interval=16000))

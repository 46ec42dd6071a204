"""FCN with a non-local block in its head (mmseg's nonlocal_r50-d8), ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch \
        segmentation/fcn_r50d8-nonlocal-head_4xb4-160k_ade20k-512x512
    visionattn train segmentation/fcn_r50d8-nonlocal-head_4xb4-160k_ade20k-512x512
    visionattn test segmentation/fcn_r50d8-nonlocal-head_4xb4-160k_ade20k-512x512 CHECKPOINT [--tta]

Published: mIoU 42.03 single scale, 43.04 with --tta's scales and flip (OneDL mmseg 1.4.2's metafile),
4 GPUs with 4 images each. Not run here.
Weights: resnet50_v1c ("open-mmlab://resnet50_v1c") as OneDL mmseg's configs/nonlocal_net names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = [
    "../_base_/models/r50d8.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(
    decode_head=dict(type="mmseg.NLHead", reduction=2, use_scale=True, mode="embedded_gaussian", num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
default_hooks = dict(checkpoint=dict(interval=16000))

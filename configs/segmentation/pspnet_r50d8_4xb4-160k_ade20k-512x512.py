"""PSPNet, ResNet-50 at stride 8, ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch \
        segmentation/pspnet_r50d8_4xb4-160k_ade20k-512x512
    visionattn train segmentation/pspnet_r50d8_4xb4-160k_ade20k-512x512
    visionattn test segmentation/pspnet_r50d8_4xb4-160k_ade20k-512x512 CHECKPOINT [--tta]

Published: mIoU 42.48 single scale, 43.44 with --tta's scales and flip (OneDL mmseg 1.4.2's metafile),
4 GPUs with 4 images each. Not run here.
Weights: resnet50_v1c ("open-mmlab://resnet50_v1c") as OneDL mmseg's configs/pspnet names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = [
    "../_base_/models/r50d8.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(
    decode_head=dict(type="mmseg.PSPHead", pool_scales=(1, 2, 3, 6), num_classes=150),
    auxiliary_head=dict(num_classes=150),
)
default_hooks = dict(checkpoint=dict(interval=16000))

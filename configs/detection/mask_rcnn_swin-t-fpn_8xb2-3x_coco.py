"""Mask R-CNN, Swin-T with a pyramid, COCO, 3x: 36 epochs at 16 images an iteration.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco
    visionattn train detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco --cfg-options data_root=PATH
    visionattn test detection/mask_rcnn_swin-t-fpn_8xb2-3x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 46.0, mask AP 41.6 (Liu et al., their own code). Not run here.
Differs: short side 480 to 800, without the second of the published augmentations (resized, cropped, resized again).
Weights: Swin-T trained on ImageNet, Microsoft's or timm's, downloaded by hand,
--cfg-options model.backbone.checkpoint=PATH.
"""

_base_ = [
    "../_base_/models/mask_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/detection_adamw_3x_swin.py",
    "../_base_/runtime/detection.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="visionattn.SwinTransformer",
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window=(7, 7),
        drop_path_rate=0.2,
        checkpoint=None,
    )
)
train_pipeline = [
    dict(
        type="visionattn.DetectionAugment",
        transforms=[
            dict(type="FittedResize", scales=[(1333, short) for short in range(480, 801, 32)]),
            dict(type="HorizontalFlip", p=0.5),
        ],
    ),
    dict(type="visionattn.PackDetection"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
default_hooks = dict(checkpoint=dict(interval=21990))

"""Faster R-CNN, ResNet-18 with a pyramid, BCCD blood cells, from scratch.

    visionattn train detection/faster_rcnn_r18-fpn_bccd --cfg-options data_root=PATH
    visionattn test detection/faster_rcnn_r18-fpn_bccd CHECKPOINT --cfg-options data_root=PATH

Not run here to the end. After 500 iterations of 2 images of 256x192 (benchmarks/bccd.py): val AP50 0.888,
test AP50 0.889.
"""

_base_ = [
    "../_base_/models/faster_rcnn_r50_fpn.py",
    "../_base_/datasets/bccd.py",
    "../_base_/schedules/detection_adamw_6k.py",
    "../_base_/runtime/detection.py",
]
model = dict(
    backbone=dict(model_name="resnet18", frozen_stages=-1, norm_eval=False, timm_options=dict(zero_init_last=False)),
    neck=dict(out_channels=128),
    head=dict(num_classes=3, box=dict(width=512)),
)
default_hooks = dict(checkpoint=dict(interval=500))

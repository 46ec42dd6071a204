"""Faster R-CNN with five efficient attention modules, at res3, res4 and P3 to P5; else as faster_rcnn_r18-fpn_bccd.

    visionattn train detection/faster_rcnn_r18-fpn-efficient_bccd --cfg-options data_root=PATH
    visionattn test detection/faster_rcnn_r18-fpn-efficient_bccd CHECKPOINT --cfg-options data_root=PATH

Not run here to the end. After 500 iterations of 2 images of 256x192 (benchmarks/bccd.py): val AP50 0.880,
test AP50 0.887.
"""

_base_ = [
    "faster_rcnn_r18-fpn_bccd.py",
]
level = dict(type="EfficientAttention", key_dim=64, value_dim=64)
stages = {
    "layer2": dict(type="EfficientAttention", key_dim=64, value_dim=64),
    "layer3": dict(type="EfficientAttention", key_dim=128, value_dim=128),
}
model = dict(backbone=dict(attention=stages), neck=dict(attention=[None, level, level, level, None]))

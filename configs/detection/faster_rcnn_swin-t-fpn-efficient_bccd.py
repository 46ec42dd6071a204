"""Faster R-CNN with three efficient attention modules, on P3 to P5; else as faster_rcnn_swin-t-fpn_bccd.

    visionattn train detection/faster_rcnn_swin-t-fpn-efficient_bccd --cfg-options data_root=PATH
    visionattn test detection/faster_rcnn_swin-t-fpn-efficient_bccd CHECKPOINT --cfg-options data_root=PATH

Not run here to the end: no figure.
"""

_base_ = [
    "faster_rcnn_swin-t-fpn_bccd.py",
]
level = dict(type="EfficientAttention", key_dim=64, value_dim=64)
model = dict(neck=dict(attention=[None, level, level, level, None]))

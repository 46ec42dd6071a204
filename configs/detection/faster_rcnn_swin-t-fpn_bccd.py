"""Faster R-CNN, Swin-T with a pyramid, BCCD blood cells, from scratch.

    visionattn train detection/faster_rcnn_swin-t-fpn_bccd --cfg-options data_root=PATH
    visionattn test detection/faster_rcnn_swin-t-fpn_bccd CHECKPOINT --cfg-options data_root=PATH

Not run here to the end: no figure.
"""

_base_ = [
    "faster_rcnn_r18-fpn_bccd.py",
]
model = dict(
    backbone=dict(
        _delete_=True,
        type="visionattn.SwinTransformer",
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window=(7, 7),
        drop_path_rate=0.1,
    )
)

"""UPerNet, ResNet-18 with efficient attention at strides 8, 16 and 32, CamVid (SegNet split, 480x360), from scratch.

    visionattn train segmentation/upernet_r18-efficient_camvid --cfg-options data_root=PATH
    visionattn test segmentation/upernet_r18-efficient_camvid work_dirs/upernet_r18-efficient_camvid/iter_20000.pth \
        --cfg-options data_root=PATH

Not run here to the end: no figure. Void is left out of the metric, as in mmseg; state it with any figure.
"""

_base_ = ["upernet_r18_camvid.py"]
model = dict(
    backbone=dict(
        attention=[
            None,
            dict(type="EfficientAttention", key_dim=64),
            dict(type="EfficientAttention", key_dim=128),
            dict(type="EfficientAttention", key_dim=256),
        ]
    )
)

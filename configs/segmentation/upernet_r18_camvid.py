"""UPerNet, ResNet-18, CamVid (SegNet split, 480x360), from scratch; the twin of upernet_r18-efficient_camvid.

    visionattn train segmentation/upernet_r18_camvid --cfg-options data_root=PATH
    visionattn test segmentation/upernet_r18_camvid work_dirs/upernet_r18_camvid/iter_20000.pth \
        --cfg-options data_root=PATH

Not run here to the end: no figure. Void is left out of the metric, as in mmseg; state it with any figure.
"""

_base_ = [
    "../_base_/models/upernet_r18.py",
    "../_base_/datasets/camvid.py",
    "../_base_/schedules/adamw_20k.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(decode_head=dict(num_classes=11), auxiliary_head=dict(num_classes=11))

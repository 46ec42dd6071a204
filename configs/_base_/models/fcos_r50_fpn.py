# FCOS on ResNet-50, P6 and P7 from P5; of its weights see faster_rcnn_r50_fpn.py.
_base_ = ["faster_rcnn_r50_fpn.py"]
model = dict(
    backbone=dict(out_indices=(2, 3, 4)),
    neck=dict(extra_levels=dict(type="visionattn.LastLevelP6P7", on_output=True)),
    head=dict(_delete_=True, type="visionattn.FCOSHead", num_classes=80),
)

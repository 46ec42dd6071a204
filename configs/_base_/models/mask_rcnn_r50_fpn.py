# Mask R-CNN on ResNet-50 with a pyramid; of its weights see faster_rcnn_r50_fpn.py.
_base_ = ["faster_rcnn_r50_fpn.py"]
model = dict(head=dict(mask=dict()))

"""Mask R-CNN, ResNet-50 with a pyramid, LVIS v1: 180,000 iterations of 16 images, rare classes repeated.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/mask_rcnn_r50-fpn_8xb2-180k_lvis-v1
    visionattn train detection/mask_rcnn_r50-fpn_8xb2-180k_lvis-v1 --cfg-options data_root=PATH
    visionattn test detection/mask_rcnn_r50-fpn_8xb2-180k_lvis-v1 CHECKPOINT --cfg-options data_root=PATH

Published: schedule and evaluation options are detectron2's, of which no figure was found; box AP 22.5, mask AP 21.7 is
OpenMMLab's with the same repetition and 12 epochs. Not run here.
Differs: detectron2 draws anew in every epoch how often an image is repeated; mmengine rounds up once.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "../_base_/models/mask_rcnn_r50_fpn.py",
    "../_base_/datasets/lvis_v1_instance.py",
    "../_base_/schedules/detection_sgd_180k.py",
    "../_base_/runtime/detection.py",
]
# 300 detections of an image count, and a rare class's scores are low.
model = dict(head=dict(num_classes=1203, box=dict(min_score=1e-4, detections=300)))
default_hooks = dict(checkpoint=dict(interval=30000, save_best="lvis/segm_AP"))

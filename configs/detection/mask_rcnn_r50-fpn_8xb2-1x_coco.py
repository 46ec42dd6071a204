"""Mask R-CNN, ResNet-50 with a pyramid, COCO, 1x: 90,000 iterations of 16 images.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/mask_rcnn_r50-fpn_8xb2-1x_coco
    visionattn train detection/mask_rcnn_r50-fpn_8xb2-1x_coco --cfg-options data_root=PATH
    visionattn test detection/mask_rcnn_r50-fpn_8xb2-1x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 38.6, mask AP 35.2 (detectron2's model zoo, 8 GPUs with 2 images each); 39.4, 35.1 is the baseline of
efficient attention's authors, whose schedule could not be read. Not run here.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "../_base_/models/mask_rcnn_r50_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/detection_sgd_1x.py",
    "../_base_/runtime/detection.py",
]

"""Mask R-CNN with one non-local module, at res4, COCO, 1x.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/mask_rcnn_r50-fpn-nonlocal-x1_8xb2-1x_coco
    visionattn train detection/mask_rcnn_r50-fpn-nonlocal-x1_8xb2-1x_coco --cfg-options data_root=PATH
    visionattn test detection/mask_rcnn_r50-fpn-nonlocal-x1_8xb2-1x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 40.3, mask AP 35.9 (Shen et al., WACV 2021; baseline 39.4, 35.1); their schedule could not be
read, 1x is ours. Not run here.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "mask_rcnn_r50-fpn_8xb2-1x_coco.py",
]
model = dict(backbone=dict(attention={"layer3": dict(type="NonLocal")}))

"""FCOS, ResNet-50 with a pyramid, COCO, 1x: 90,000 iterations of 16 images.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/fcos_r50-fpn_8xb2-1x_coco
    visionattn train detection/fcos_r50-fpn_8xb2-1x_coco --cfg-options data_root=PATH
    visionattn test detection/fcos_r50-fpn_8xb2-1x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 38.7 (FCOS_R_50_1x of the authors' AdelaiDet, trained at a short side of 800; here it is 640 to 800);
39.2 are torchvision's own weights after a longer schedule. Not run here.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "../_base_/models/fcos_r50_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/detection_sgd_1x.py",
    "../_base_/runtime/detection.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))

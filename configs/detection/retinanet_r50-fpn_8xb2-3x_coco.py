"""RetinaNet, ResNet-50 with a pyramid, COCO, 3x: 270,000 iterations of 16 images.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/retinanet_r50-fpn_8xb2-3x_coco
    visionattn train detection/retinanet_r50-fpn_8xb2-3x_coco --cfg-options data_root=PATH
    visionattn test detection/retinanet_r50-fpn_8xb2-3x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 37.9 (detectron2's model zoo, 8 GPUs with 2 images each). Not run here.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "../_base_/models/retinanet_r50_fpn.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/detection_sgd_3x.py",
    "../_base_/runtime/detection.py",
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
default_hooks = dict(checkpoint=dict(interval=22500))

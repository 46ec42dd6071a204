"""Mask R-CNN with seven efficient attention modules, at res3, res4 and P2 to P6, COCO, 1x.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        detection/mask_rcnn_r50-fpn-efficient-x7_8xb2-1x_coco
    visionattn train detection/mask_rcnn_r50-fpn-efficient-x7_8xb2-1x_coco --cfg-options data_root=PATH
    visionattn test detection/mask_rcnn_r50-fpn-efficient-x7_8xb2-1x_coco CHECKPOINT --cfg-options data_root=PATH

Published: box AP 41.2, mask AP 36.7 (Shen et al., WACV 2021; baseline 39.4, 35.1). Their schedule, and where their
modules stand, could not be read: the places here are `efficient_attention_places(7)`, the schedule is 1x. Not run here.
Non-local modules in these places ran out of memory there.
Weights: timm's resnet50 trained on ImageNet, downloaded by hand, --cfg-options model.backbone.checkpoint=PATH; without
them the frozen stages stay as they were drawn: model.backbone.frozen_stages=-1 model.backbone.norm_eval=False.
"""

_base_ = [
    "mask_rcnn_r50-fpn_8xb2-1x_coco.py",
]
stages = {
    "layer2": dict(type="EfficientAttention", key_dim=256, value_dim=256),
    "layer3": dict(type="EfficientAttention", key_dim=512, value_dim=512),
}
model = dict(
    backbone=dict(attention=stages),
    neck=dict(attention=[dict(type="EfficientAttention", key_dim=128, value_dim=128)] * 5),
)

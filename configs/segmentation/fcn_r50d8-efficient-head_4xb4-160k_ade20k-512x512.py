"""FCN with efficient attention in its head: the twin of fcn_r50d8-nonlocal-head_4xb4-160k_ade20k-512x512.

    torchrun --nproc-per-node=4 tools/train.py --launcher pytorch \
        segmentation/fcn_r50d8-efficient-head_4xb4-160k_ade20k-512x512
    visionattn train segmentation/fcn_r50d8-efficient-head_4xb4-160k_ade20k-512x512
    visionattn test segmentation/fcn_r50d8-efficient-head_4xb4-160k_ade20k-512x512 CHECKPOINT [--tta]

No figure is published; its twin's is 42.03. It differs in the attention alone: linear in the 64 x 64 positions, not
quadratic, with the same inner width of 256. Not run here.
Weights: resnet50_v1c ("open-mmlab://resnet50_v1c") as OneDL mmseg's configs/nonlocal_net names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = [
    "../_base_/models/r50d8.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/sgd_160k.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(
    decode_head=dict(
        _delete_=True,
        type="visionattn.AttentionHead",
        head=dict(
            type="mmseg.FCNHead",
            in_channels=2048,
            in_index=3,
            channels=512,
            num_convs=2,
            dropout_ratio=0.1,
            num_classes=150,
            norm_cfg=dict(type="BN"),
            align_corners=False,
            loss_decode=dict(type="visionattn.CrossEntropyLoss"),
        ),
        attention=dict(type="EfficientAttention", key_dim=256, value_dim=256),
    ),
    auxiliary_head=dict(num_classes=150),
)
default_hooks = dict(checkpoint=dict(interval=16000))

"""UPerNet, Swin-T of visionattn instead of mmseg's, ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        segmentation/upernet_visionattn-swin-t_8xb2-160k_ade20k-512x512
    visionattn train segmentation/upernet_visionattn-swin-t_8xb2-160k_ade20k-512x512
    visionattn test segmentation/upernet_visionattn-swin-t_8xb2-160k_ade20k-512x512 CHECKPOINT [--tta]

Published for the same network and recipe: mIoU 44.51 (Liu et al., Swin Transformer), single scale. Not run here.
Weights: --cfg-options model.backbone.checkpoint=PATH takes microsoft's, timm's, torchvision's or mmseg's Swin-T of
ImageNet as it is, a downloaded file; without, from scratch.
Another mechanism in place of the windows: --cfg-options model.backbone.attention=EfficientAttention.
"""

_base_ = ["upernet_swin-t_8xb2-160k_ade20k-512x512.py"]
model = dict(
    backbone=dict(
        _delete_=True,
        type="visionattn.SwinTransformer",
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window=[7, 7],
        drop_path_rate=0.3,
        checkpoint=None,
    )
)

"""UPerNet, Swin-S, ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        segmentation/upernet_swin-s_8xb2-160k_ade20k-512x512
    visionattn train segmentation/upernet_swin-s_8xb2-160k_ade20k-512x512
    visionattn test segmentation/upernet_swin-s_8xb2-160k_ade20k-512x512 CHECKPOINT [--tta]

Published: mIoU 47.64 (Liu et al., Swin Transformer, their own code), 47.72 (mmseg's), single scale, 8 GPUs with 2
images each. Not run here.
Weights: swin_small_patch4_window7_224_20220317-7ba6d6dd.pth as OneDL mmseg's configs/swin names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = ["upernet_swin-t_8xb2-160k_ade20k-512x512.py"]
model = dict(backbone=dict(depths=[2, 2, 18, 2]))

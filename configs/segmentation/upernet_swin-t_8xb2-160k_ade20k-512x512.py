"""UPerNet, Swin-T, ADE20K, 160,000 iterations of 16 crops of 512x512.

    torchrun --nproc-per-node=8 tools/train.py --launcher pytorch \
        segmentation/upernet_swin-t_8xb2-160k_ade20k-512x512
    visionattn train segmentation/upernet_swin-t_8xb2-160k_ade20k-512x512
    visionattn test segmentation/upernet_swin-t_8xb2-160k_ade20k-512x512 CHECKPOINT [--tta]

Published: mIoU 44.51 (Liu et al., Swin Transformer, their own code), 44.41 (mmseg's), single scale, 8 GPUs with 2
images each. Not run here.
Weights: swin_tiny_patch4_window7_224_20220317-1cdeb081.pth as OneDL mmseg's configs/swin names it, downloaded by hand,
--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint=PATH; without, from scratch.
"""

_base_ = [
    "../_base_/models/upernet_swin.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/adamw_160k_swin.py",
    "../_base_/runtime/segmentation.py",
]
model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=16000))

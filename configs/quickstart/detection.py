"""From nothing to a trained Mask R-CNN in minutes on two CPU cores, on made-up scenes.

visionattn train quickstart/detection
python tools/train.py configs/quickstart/detection.py
"""

_base_ = ["../_base_/datasets/made_up_coco.py", "../_base_/runtime/detection.py"]

iterations = 400

model = dict(
    type="visionattn.Detector",
    backbone=dict(
        type="visionattn.TimmBackbone",
        model_name="resnet18",
        # A short training: every residual branch works from the first step.
        timm_options=dict(channels=(32, 64, 128, 256), zero_init_last=False),
        attention=[
            None,
            None,
            dict(type="EfficientAttention", key_dim=64),
            dict(type="EfficientAttention", key_dim=128),
        ],
    ),
    neck=dict(type="visionattn.FPN", out_channels=64, extra_levels=dict(type="visionattn.LastLevelMaxPool")),
    head=dict(
        type="visionattn.RCNNHead",
        num_classes=8,
        # The images are a quarter as large as COCO's, and so are the objects.
        rpn=dict(anchor_sizes=(12, 24, 48, 96, 160), pre_nms=(500, 300), post_nms=(300, 100)),
        box=dict(width=256, samples=64),
        mask=dict(convs=(32, 32), width=32),
    ),
)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [dict(type="OneCycleLR", eta_max=1e-3, total_steps=iterations, pct_start=0.15, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations, max_keep_ckpts=1, save_best=None))
